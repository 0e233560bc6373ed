//! The OpenAPI 3.1 document, made from the table of routes and the schemas of the protocol's types,
//! and the JSON Schema of manifests.

use std::sync::OnceLock;

use axum::body::Bytes;
use axum::http::header;
use axum::response::IntoResponse;
use haar_protocol::ids::{Digest, Name, RouteId};
use haar_protocol::keys::PublicKey;
use haar_protocol::manifest;
use haar_protocol::number::NUMBER_MAX;
use haar_protocol::rest::ErrorBody;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::{Access, Route, routes};

/// What a body is.
pub(super) enum Content {
    /// There is none.
    None,
    /// A value of one type of the protocol.
    Json(fn(&mut SchemaGenerator) -> Value),
    /// JSON of a form that is standardised elsewhere.
    AnyJson,
    /// A manifest.
    Yaml,
    /// A certificate.
    Pem,
    /// A module.
    Bytes,
}

impl Content {
    /// A value of the type `T`.
    pub(super) fn json<T: JsonSchema>() -> Self {
        Content::Json(|generator| generator.subschema_for::<T>().to_value())
    }

    fn describe(&self, generator: &mut SchemaGenerator) -> Option<Value> {
        let text = || json!({ "type": "string" });
        let (media_type, schema) = match self {
            Content::None => return None,
            Content::Json(schema) => ("application/json", schema(generator)),
            Content::AnyJson => ("application/json", json!({ "type": "object" })),
            Content::Yaml => ("application/yaml", text()),
            Content::Pem => ("application/x-pem-file", text()),
            Content::Bytes => ("application/wasm", json!({})),
        };
        Some(json!({ media_type: { "schema": schema } }))
    }
}

/// `GET /openapi.json`
pub(super) async fn show() -> impl IntoResponse {
    static TEXT: OnceLock<Bytes> = OnceLock::new();
    made_once(&TEXT, document)
}

/// `GET /schemas/application.json`
pub(super) async fn manifest_schema() -> impl IntoResponse {
    static TEXT: OnceLock<Bytes> = OnceLock::new();
    made_once(&TEXT, manifest::json_schema)
}

/// `GET /schemas/relay.json`
pub(super) async fn relay_schema() -> impl IntoResponse {
    static TEXT: OnceLock<Bytes> = OnceLock::new();
    made_once(&TEXT, manifest::relay_json_schema)
}

/// A document that everybody may ask for without a token: it costs no time but the first, and its
/// bytes are shared by all connections.
fn made_once(text: &OnceLock<Bytes>, make: fn() -> Value) -> impl IntoResponse + use<> {
    let text = text.get_or_init(|| make().to_string().into()).clone();
    ([(header::CONTENT_TYPE, "application/json")], text)
}

fn document() -> Value {
    let settings = SchemaSettings::draft2020_12()
        .with(|settings| settings.definitions_path = "/components/schemas".into());
    let mut generator = settings.into_generator();
    let mut paths: Map<String, Value> = Map::new();
    for route in routes() {
        let operation = operation(&route, &mut generator);
        let path = paths
            .entry(format!("/api/v1{}", route.path))
            .or_insert_with(|| json!({}));
        path[route.method.to_lowercase()] = operation;
    }
    let schemas = generator.take_definitions(true);
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Haar controller",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The REST API of a site. People authenticate with a bearer token, nodes with a proof of their key.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "person": { "type": "http", "scheme": "bearer" },
                "node": { "type": "http", "scheme": "Haar-Proof" },
            },
        },
    });
    bound_numbers(&mut document);
    document
}

/// What stands in a path or a query under this name.
fn parameter(name: &str, generator: &mut SchemaGenerator) -> Value {
    let whole = |most: u64| json!({ "type": "integer", "minimum": 0, "maximum": most });
    match name {
        "name" | "application" | "microservice" | "node" => {
            generator.subschema_for::<Name>().to_value()
        }
        "digest" => generator.subschema_for::<Digest>().to_value(),
        "route" => generator.subschema_for::<RouteId>().to_value(),
        "key" => generator.subschema_for::<PublicKey>().to_value(),
        "id" | "after" | "since_ms" => whole(NUMBER_MAX),
        "tail" | "limit" => whole(u32::MAX.into()),
        "follow" | "dry_run" | "careful" | "keep_data" | "certificate" => {
            json!({ "type": "boolean" })
        }
        "engine" => json!({ "type": "string", "pattern": "^[0-9a-f]{64}$" }),
        "target" => json!({ "type": "string", "pattern": "^[a-z0-9_-]{1,32}$" }),
        _ => unreachable!("the parameter `{name}` has no schema"),
    }
}

/// Numbers of every schema end where those of the code do.
fn bound_numbers(schema: &mut Value) {
    let most = match schema["format"].as_str() {
        Some("uint64" | "int64" | "uint") => NUMBER_MAX,
        Some("uint32") => u32::MAX.into(),
        Some("uint16") => u16::MAX.into(),
        _ => 0,
    };
    match schema {
        Value::Object(fields) => {
            if most > 0 && !fields.contains_key("maximum") {
                fields.insert("maximum".into(), most.into());
            }
            fields.values_mut().for_each(bound_numbers);
        }
        Value::Array(items) => items.iter_mut().for_each(bound_numbers),
        _ => {}
    }
}

fn operation(route: &Route, generator: &mut SchemaGenerator) -> Value {
    let mut operation = json!({ "summary": route.summary });
    let in_path = route
        .path
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let places = in_path
        .map(|name| ("path", name))
        .chain(route.query.iter().map(|name| ("query", *name)));
    let parameters: Vec<Value> = places
        .map(|(place, name)| {
            let is_required = place == "path" || name == "engine";
            let schema = parameter(name, generator);
            json!({ "name": name, "in": place, "required": is_required, "schema": schema })
        })
        .collect();
    if !parameters.is_empty() {
        operation["parameters"] = Value::Array(parameters);
    }
    if let Some(content) = route.body.describe(generator) {
        operation["requestBody"] = json!({ "required": true, "content": content });
    }
    let error = generator.subschema_for::<ErrorBody>().to_value();
    let refused =
        json!({ "description": "Refused", "content": { "application/json": { "schema": error } } });
    operation["responses"] = match route.answer.describe(generator) {
        Some(mut content) => {
            if route.query.contains(&"follow") {
                content["text/event-stream"] = json!({ "schema": { "type": "string" } });
            }
            json!({ "2XX": { "description": "Done", "content": content }, "default": refused })
        }
        None => json!({ "204": { "description": "Done" }, "default": refused }),
    };
    operation["security"] = match route.access {
        Access::Open => json!([]),
        Access::People => json!([{ "person": [] }]),
        Access::PeopleAndNodes => json!([{ "person": [] }, { "node": [] }]),
    };
    operation
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_in_the_document_leads_to_a_schema() {
        let document = document();
        let text = document.to_string();
        let mut references = 0;
        for rest in text.split("\"$ref\":\"").skip(1) {
            let reference = &rest[..rest.find('"').unwrap()];
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
            references += 1;
        }
        assert!(references > 30);
    }

    #[test]
    fn what_may_stand_in_paths_queries_and_bodies_is_described() {
        let document = document();
        let schema = |path: &str, method: &str, name: &str| {
            let parameters = &document["paths"][format!("/api/v1{path}")][method]["parameters"];
            let all = parameters.as_array().unwrap();
            let found = all.iter().find(|parameter| parameter["name"] == name);
            found.unwrap()["schema"].clone()
        };
        let name = json!({ "$ref": "#/components/schemas/Name" });
        assert_eq!(schema("/nodes/{name}", "get", "name"), name);
        assert_eq!(schema("/logs", "get", "application"), name);
        assert_eq!(schema("/logs", "get", "follow")["type"], "boolean");
        assert_eq!(schema("/logs", "get", "tail")["minimum"], 0);
        let schemas = &document["components"]["schemas"];
        assert!(schemas["Name"]["pattern"].is_string());
        assert!(schemas["PublicKey"]["pattern"].is_string());
        let expiry = &schemas["TokenRequest"]["properties"]["expires_in_s"];
        assert_eq!(
            (&expiry["minimum"], &expiry["maximum"]),
            (&json!(1), &json!(31_536_000))
        );
        let ids = &schemas["NamedLetters"]["properties"]["ids"];
        assert_eq!(ids["maxItems"], 1_000);
        assert_eq!(ids["items"]["maximum"], NUMBER_MAX);
        assert_eq!(schemas["TokenRequest"]["type"], "object");
    }

    #[test]
    fn the_document_lists_every_route_of_the_table() {
        let document = document();
        for route in routes() {
            let path = format!("/api/v1{}", route.path);
            let operation = &document["paths"][&path][route.method.to_lowercase()];
            assert_eq!(
                operation["summary"], route.summary,
                "{} {path}",
                route.method
            );
        }
    }
}
