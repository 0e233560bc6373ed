//! The versions of modules: one release has one spelling.

use haar_protocol::module::check_version;

#[test]
fn one_release_has_one_version() {
    for good in [
        "1.4.2",
        "0.0.0",
        "2.0.0-rc.1",
        "1.0.0-alpha-x.7.z+build.001",
        "10.20.30+exp",
    ] {
        assert_eq!(check_version(good), Ok(()), "{good}");
    }
    let long = format!("1.0.0-{}", "a".repeat(60));
    let mut answers = String::new();
    for bad in [
        "", "1", "1.0", "v1.0", "v1.0.0", "01.1.", "1.01.0", "../..", "1.0.0-01", "1.0.0-",
        "1.0.0+", "1.0.0.0", "1.0.0 ", "1.0.0\n", "a.b.c", &long,
    ] {
        answers += &format!("{bad:?}: {}\n", check_version(bad).unwrap_err());
    }
    crate::golden::check("versions.txt", &answers);
}
