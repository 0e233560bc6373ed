//! The published JSON Schema of the manifest.

use haar_protocol::manifest::json_schema;

#[test]
fn the_schema_of_the_manifest_keeps_its_form() {
    let text = serde_json::to_string_pretty(&json_schema()).unwrap() + "\n";
    crate::golden::check("application.schema.json", &text);
}

#[test]
fn the_schema_describes_every_key() {
    let schema = json_schema();
    assert_eq!(schema["title"], "Haar application manifest");
    assert!(schema["$id"].is_string());
    let definitions = schema["$defs"].as_object().unwrap().values();
    for object in definitions.chain([&schema]) {
        let Some(properties) = object["properties"].as_object() else {
            continue;
        };
        assert_eq!(object["additionalProperties"], false, "{object}");
        for (key, property) in properties {
            assert!(
                property["description"].is_string(),
                "{key} has no description"
            );
        }
    }
}
