// Answers each message with itself; `fail` makes it fail. Plain C with its library.

#include "guest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char PREFIX[] = "c: ";

bool exports_haar_local_handler_handle(exports_haar_local_handler_delivery_t *message,
                                       exports_haar_local_handler_rejection_t *error) {
  if (message->body.len == 4 && memcmp(message->body.ptr, "fail", 4) == 0) {
    fputs("the message asks for it\n", stderr);
    abort();
  }
  size_t prefix = sizeof PREFIX - 1;
  guest_list_u8_t body = {malloc(prefix + message->body.len), prefix + message->body.len};
  memcpy(body.ptr, PREFIX, prefix);
  memcpy(body.ptr + prefix, message->body.ptr, message->body.len);
  guest_string_t outlet;
  guest_string_set(&outlet, "out");
  haar_local_messaging_sequence_t sequence;
  haar_local_messaging_publish_error_t refused;
  bool published =
      haar_local_messaging_publish(&outlet, &body, &message->headers, &sequence, &refused);
  free(body.ptr);
  exports_haar_local_handler_delivery_free(message);
  if (!published) {
    error->tag = EXPORTS_HAAR_LOCAL_HANDLER_REJECTION_RETRY;
    guest_string_dup(&error->val.retry, "it could not be published");
  }
  return published;
}
