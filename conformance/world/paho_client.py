"""A device of the world suite on Eclipse Paho: publishes the JSON lines of its standard input, or
prints what it hears as JSON lines. Called by conformance/src/world/client.rs, which says the format.
"""

import argparse
import json
import sys

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

WAIT_S = 300


def properties_of(wanted):
    properties = Properties(PacketTypes.PUBLISH)
    plain = {
        "content_type": "ContentType",
        "response_topic": "ResponseTopic",
        "message_expiry_s": "MessageExpiryInterval",
        "payload_format": "PayloadFormatIndicator",
        "topic_alias": "TopicAlias",
    }
    for key, name in plain.items():
        if key in wanted:
            setattr(properties, name, wanted[key])
    if "correlation_data" in wanted:
        properties.CorrelationData = bytes.fromhex(wanted["correlation_data"])
    if wanted.get("user"):
        properties.UserProperty = [tuple(pair) for pair in wanted["user"]]
    return properties


def publish(client, is_version_5):
    waiting = []
    for line in sys.stdin:
        message = json.loads(line)
        properties = properties_of(message["properties"]) if is_version_5 else None
        waiting.append(
            client.publish(
                message["topic"],
                bytes.fromhex(message["body"]),
                qos=message["qos"],
                retain=message["retain"],
                properties=properties,
            )
        )
    for number, message in enumerate(waiting):
        message.wait_for_publish(WAIT_S)
        if not message.is_published():
            sys.exit(f"message {number} was not acknowledged within {WAIT_S} s")


def heard(message):
    properties = getattr(message, "properties", None)
    return {
        "topic": message.topic,
        "qos": message.qos,
        "retain": bool(message.retain),
        "type": getattr(properties, "ContentType", None),
        "user": [list(pair) for pair in getattr(properties, "UserProperty", [])],
        "body": message.payload.hex(),
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("mode", choices=["publish", "listen"])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--id", required=True)
    parser.add_argument("--mqtt", choices=["3.1.1", "5"], required=True)
    parser.add_argument("--filter")
    parser.add_argument("--qos", type=int, default=1)
    arguments = parser.parse_args()
    is_version_5 = arguments.mqtt == "5"
    client = mqtt.Client(
        mqtt.CallbackAPIVersion.VERSION2,
        client_id=arguments.id,
        protocol=mqtt.MQTTv5 if is_version_5 else mqtt.MQTTv311,
    )
    client.reconnect_delay_set(1, 1)

    def connected(client, _userdata, _flags, reason, _properties):
        if reason.is_failure:
            sys.exit(f"refused: {reason}")
        if arguments.mode == "listen":
            client.subscribe(arguments.filter, qos=arguments.qos)

    client.on_connect = connected
    client.on_subscribe = lambda *_: print(json.dumps({"ready": True}), flush=True)
    client.on_message = lambda _client, _userdata, message: print(
        json.dumps(heard(message)), flush=True
    )
    client.connect("127.0.0.2", arguments.port, keepalive=20)
    if arguments.mode == "listen":
        client.loop_forever()
        return
    client.loop_start()
    publish(client, is_version_5)
    client.disconnect()
    client.loop_stop()


main()
