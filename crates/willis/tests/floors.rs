//! The floor plan: the crates that each crate may use.

use std::collections::BTreeMap;
use std::process::Command;

/// Allowed dependencies, from each crate to lower ones.
const FLOORS: [(&str, &[&str]); 8] = [
    ("willis-core", &[]),
    ("willis-kernels", &[]),
    ("willis-phantom", &["willis-core", "willis-kernels"]),
    ("willis-physics", &["willis-core", "willis-kernels"]),
    ("willis-stats", &["willis-core", "willis-kernels"]),
    ("willis-imaging", &["willis-core", "willis-kernels"]),
    ("willis-nets", &["willis-core", "willis-kernels", "willis-stats"]),
    (
        "willis",
        &[
            "willis-core",
            "willis-kernels",
            "willis-phantom",
            "willis-physics",
            "willis-stats",
            "willis-imaging",
            "willis-nets",
        ],
    ),
];

fn dependencies() -> BTreeMap<String, Vec<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .output()
        .expect("cargo runs this test, so cargo can be run");
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    let list = |v: &serde_json::Value| v.as_array().cloned().unwrap_or_default();
    let name = |v: &serde_json::Value| v["name"].as_str().unwrap_or_default().to_string();
    list(&metadata["packages"])
        .iter()
        .map(|package| {
            let used = list(&package["dependencies"]).iter().filter(|d| d["kind"].is_null()).map(name).collect();
            (name(package), used)
        })
        .collect()
}

#[test]
fn crates_use_only_the_floors_below() {
    let dependencies = dependencies();
    assert_eq!(dependencies.len(), FLOORS.len(), "a crate is missing from the floor plan");
    for (name, allowed) in FLOORS {
        for used in dependencies[name].iter().filter(|d| d.starts_with("willis")) {
            assert!(allowed.contains(&used.as_str()), "{name} must not use {used}");
        }
    }
}

#[test]
fn only_nets_names_burn_and_few_crates_name_dicom() {
    for (name, used) in dependencies() {
        assert_eq!(used.iter().any(|d| d == "burn"), name == "willis-nets", "{name} and burn");
        let dicom = used.iter().any(|d| d.starts_with("dicom"));
        // Imaging reads series, phantom writes them, willis writes objects about them.
        let allowed = ["willis-imaging", "willis-phantom", "willis"];
        assert!(!dicom || allowed.contains(&name.as_str()), "{name} and dicom");
    }
}
