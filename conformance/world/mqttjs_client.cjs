// A device of the world suite on MQTT.js: publishes the JSON lines of its standard input, or prints
// what it hears as JSON lines. Called by conformance/src/world/client.rs, which says the format.

"use strict";

const readline = require("node:readline");
const { createRequire } = require("node:module");

const options = {};
const [mode, ...rest] = process.argv.slice(2);
for (let at = 0; at < rest.length; at += 2) {
  options[rest[at].replace(/^--/, "")] = rest[at + 1];
}
const mqtt = createRequire(`${options.modules}/`)("mqtt");
const isVersion5 = options.mqtt === "5";

function propertiesOf(wanted) {
  const names = {
    content_type: "contentType",
    response_topic: "responseTopic",
    message_expiry_s: "messageExpiryInterval",
    topic_alias: "topicAlias",
  };
  const properties = {};
  for (const [key, name] of Object.entries(names)) {
    if (key in wanted) properties[name] = wanted[key];
  }
  if ("payload_format" in wanted) {
    properties.payloadFormatIndicator = wanted.payload_format === 1;
  }
  if ("correlation_data" in wanted) {
    properties.correlationData = Buffer.from(wanted.correlation_data, "hex");
  }
  if (wanted.user?.length) {
    properties.userProperties = {};
    for (const [name, value] of wanted.user) properties.userProperties[name] = value;
  }
  return properties;
}

function heard(topic, payload, packet) {
  const properties = packet.properties ?? {};
  return {
    topic,
    qos: packet.qos,
    retain: packet.retain,
    type: properties.contentType ?? null,
    user: Object.entries(properties.userProperties ?? {}),
    body: payload.toString("hex"),
  };
}

const client = mqtt.connect({
  host: "127.0.0.2",
  port: Number(options.port),
  clientId: options.id,
  protocolVersion: isVersion5 ? 5 : 4,
  reconnectPeriod: 500,
  clean: true,
});
client.on("error", (error) => {
  // A broker that starts again is waited for; anything else ends the device.
  if (["ECONNREFUSED", "ECONNRESET"].includes(error.code)) return;
  console.error(String(error));
  process.exit(1);
});

// Brokers cut a client off that has more messages of QoS 2 in flight than they allow: twenty at Mosquitto.
const IN_FLIGHT_MAX = 16;

async function publish() {
  const waiting = [];
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const message = JSON.parse(line);
    const sent = { qos: message.qos, retain: message.retain };
    if (isVersion5) sent.properties = propertiesOf(message.properties);
    waiting.push(client.publishAsync(message.topic, Buffer.from(message.body, "hex"), sent));
    if (waiting.length >= IN_FLIGHT_MAX) await waiting.shift();
  }
  await Promise.all(waiting);
  await client.endAsync();
}

if (mode === "publish") {
  client.once("connect", () => {
    publish().catch((error) => {
      console.error(String(error));
      process.exit(1);
    });
  });
} else {
  client.on("message", (topic, payload, packet) => {
    console.log(JSON.stringify(heard(topic, payload, packet)));
  });
  client.on("connect", () => {
    client.subscribe(options.filter, { qos: Number(options.qos ?? 1) }, (error) => {
      if (error) {
        console.error(String(error));
        process.exit(1);
      }
      console.log(JSON.stringify({ ready: true }));
    });
  });
}
