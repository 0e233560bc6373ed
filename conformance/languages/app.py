"""Answers each message with itself, by way of the key-value store; `fail` makes it fail."""

from wit_world.exports import Handler as Exported
from wit_world.imports import messaging, store


class Handler(Exported):
    def handle(self, message):
        if bytes(message.body) == b"fail":
            raise ValueError("the message asks for it")
        bucket = store.open("")
        bucket.set("last", bytes(message.body))
        messaging.publish("out", b"python: " + bucket.get("last"), message.headers)
