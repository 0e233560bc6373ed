//! Wrong manifests and what is said of them: `tests/golden/manifests/NAME.yaml` and `NAME.txt`.

use std::fs;

use haar_protocol::manifest::parse;

use crate::golden;

#[test]
fn every_wrong_manifest_of_the_gallery_gets_its_errors() {
    let folder = golden::folder().join("manifests");
    let mut count = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let name = path.file_stem().unwrap().to_str().unwrap();
        let errors = parse(&fs::read_to_string(&path).unwrap(), "app.yaml").unwrap_err();
        golden::check(&format!("manifests/{name}.txt"), &format!("{errors}\n"));
        count += 1;
    }
    assert!(count >= 20, "the gallery has {count} manifests");
}
