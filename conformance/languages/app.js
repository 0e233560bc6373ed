// Answers each message with itself, by way of the key-value store; `fail` makes it fail.

import { publish } from 'haar:local/messaging@0.1.0';
import { open } from 'wasi:keyvalue/store@0.2.0-draft2';

export const handler = {
  handle(message) {
    if (new TextDecoder().decode(message.body) === 'fail') {
      throw new Error('the message asks for it');
    }
    const bucket = open('');
    bucket.set('last', message.body);
    const text = new TextDecoder().decode(bucket.get('last'));
    publish('out', new TextEncoder().encode(`javascript: ${text}`), message.headers);
  },
};
