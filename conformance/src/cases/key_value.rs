//! The key-value store: what is kept in it, for how long, and how much.

use anyhow::ensure;
use haar_conformance_artifacts::{self as artifacts, Guest};
use haar_protocol::status::State;
use serde_json::{Value, json};

use crate::case::{Case, Node};
use crate::scene::Scene;
use crate::talk::{SUBJECT, Talk};

const NODE: Node = Node::Shared("key-value");

pub(super) static CASES: &[&Case] = &[&OPERATIONS, &KEPT, &QUOTA, &PACED, &DRAFTS, &NOT_GRANTED];

/// The grant, and limits.
fn granted(limits: Value) -> Value {
    json!({ "grants": { "key_value": true }, "limits": limits })
}

/// Says a command that was not said before, and returns what the guest answers to it in its log.
fn told(scene: &mut Scene<'_>, talk: &mut Talk, command: &str) -> anyhow::Result<String> {
    talk.say(scene, command)?;
    let beginning = format!("{command} -> ");
    let line = scene.wait_lines(talk.name(), SUBJECT, &beginning, |lines| {
        let mut texts = lines.iter().map(|entry| &entry.line.text);
        texts.find(|text| text.starts_with(&beginning)).cloned()
    })?;
    Ok(line[beginning.len()..].to_owned())
}

pub(super) static OPERATIONS: Case = Case::new(
    "what_was_set_is_read_again_by_store_atomics_and_batch",
    &["R-KV-01"],
    &[Guest::KeyValue],
    NODE,
    operations,
);

fn operations(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let mut talk = Talk::start(scene, Guest::KeyValue, granted(json!({})))?;
    let dialogue = [
        ("get colour", "none"),
        ("set colour grey", "done"),
        ("in default get colour", "grey"),
        ("in other get colour", "none"),
        ("increment visits 44", "44"),
        ("increment visits -2", "42"),
        ("swap colour blue red", "false"),
        ("swap colour grey red", "true"),
        ("set-many a 1 b 2", "done"),
        ("get-many b nothing colour", "2,none,red"),
        ("keys", "a,b,colour,visits"),
        ("delete-many a nothing b", "done"),
        ("delete colour", "done"),
        ("exists colour", "false"),
        ("in default keys", "visits"),
    ];
    talk.say(scene, &dialogue.map(|(command, _)| command).join("\n"))?;
    let answers = scene.wait_lines(talk.name(), SUBJECT, "all answers", |lines| {
        let texts: Vec<_> = lines.iter().map(|entry| entry.line.text.clone()).collect();
        (texts.len() >= dialogue.len()).then_some(texts)
    })?;
    let expected = dialogue.map(|(command, answer)| format!("{command} -> {answer}"));
    ensure!(answers == expected, "{answers:#?}");
    Ok(())
}

pub(super) static KEPT: Case = Case::new(
    "the_key_value_store_outlives_a_power_cut_and_another_module",
    &["R-KV-02"],
    &[Guest::KeyValue],
    NODE,
    kept,
);

fn kept(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let same = artifacts::read(Guest::KeyValue.path());
    scene.site.push_component("key-value-again", &same)?;
    let mut talk = Talk::start(scene, Guest::KeyValue, granted(json!({})))?;
    let name = talk.name().to_owned();
    let set = told(scene, &mut talk, "set colour grey")?;
    ensure!(set == "done", "{set}");
    // The driver says its last words again when it starts again: they may do no harm.
    told(scene, &mut talk, "get nothing")?;
    scene.kill_agent()?;
    scene.start_agent()?;
    let after_cut = told(scene, &mut talk, "get colour")?;
    ensure!(after_cut == "grey", "after the power cut: {after_cut}");

    let exact = format!("key-value-again@{}", crate::modules::VERSION);
    talk.application
        .set(SUBJECT, "module", exact.as_str().into());
    scene.apply(&talk.application)?;
    scene.wait_for(&name, SUBJECT, "runs the other module", |one| {
        one.state == State::Running && one.module_label == exact
    })?;
    let after_update = told(scene, &mut talk, "in default get colour")?;
    ensure!(after_update == "grey", "after the update: {after_update}");
    Ok(())
}

pub(super) static QUOTA: Case = Case::new(
    "a_key_value_write_beyond_the_quota_is_a_typed_answer_and_changes_nothing",
    &["R-KV-03", "R-LIMIT-14"],
    &[Guest::KeyValue],
    NODE,
    quota,
);

fn quota(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let limits = json!({ "key_value_size": "64KiB" });
    let mut talk = Talk::start(scene, Guest::KeyValue, granted(limits))?;
    let fits = told(scene, &mut talk, "fill first 60000")?;
    ensure!(fits == "done", "{fits}");
    for command in ["fill second 60000", "fill-many 3000 x y z"] {
        let refused = told(scene, &mut talk, command)?;
        ensure!(
            refused.starts_with("Other(") && refused.contains("`key_value_size` of 65536 bytes"),
            "{command}: {refused}"
        );
    }
    let keys = told(scene, &mut talk, "keys")?;
    ensure!(keys == "first", "there is {keys}");
    scene.wait_for(talk.name(), SUBJECT, "counts both", |one| {
        one.exceeded.key_value_size == 2 && (60_000..=65_536).contains(&one.key_value_bytes)
    })?;
    Ok(())
}

pub(super) static PACED: Case = Case::new(
    "key_value_writes_beyond_the_rate_wait_and_are_counted",
    &["R-KV-05", "R-LIMIT-14"],
    &[Guest::KeyValue],
    NODE,
    paced,
);

fn paced(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let limits = json!({ "key_value_writes_per_second": 2 });
    let mut talk = Talk::start(scene, Guest::KeyValue, granted(limits))?;
    let writes = ["set a 1", "set a 2", "set a 3", "set a 4"];
    talk.say(scene, &writes.join("\n"))?;
    scene.wait_line(talk.name(), SUBJECT, "set a 4 -> done")?;
    let kept = told(scene, &mut talk, "get a")?;
    ensure!(kept == "4", "{kept} was kept");
    scene.wait_for(talk.name(), SUBJECT, "counts who waited", |one| {
        let exceeded = &one.exceeded;
        exceeded.key_value_writes_per_second == 3 && exceeded.key_value_per_second == 0
    })?;
    Ok(())
}

pub(super) static DRAFTS: Case = Case::new(
    "the_key_value_store_is_offered_in_both_drafts",
    &["R-KV-04"],
    &[Guest::KeyValueDraft, Guest::KeyValue],
    NODE,
    drafts,
);

fn drafts(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let limits = json!({ "key_value_per_second": 100_000, "key_value_writes_per_second": 100_000 });
    let more = granted(limits);
    let mut talk = Talk::start(scene, Guest::KeyValueDraft, more)?;
    talk.say(scene, "go")?;
    let line = scene.wait_line(talk.name(), SUBJECT, "")?;
    ensure!(
        line == "colour=grey sum=2 got=truefalse pages=1000+102 end=true exists=false",
        "the older draft: {line}"
    );
    let name = talk.name().to_owned();
    scene.delete(&name)?;
    // The SDK, and with it the other guest, has the newer draft.
    let mut talk = Talk::start(scene, Guest::KeyValue, granted(json!({})))?;
    let set = told(scene, &mut talk, "set colour grey")?;
    ensure!(set == "done", "the newer draft: {set}");
    Ok(())
}

pub(super) static NOT_GRANTED: Case = Case::new(
    "a_key_value_store_that_is_not_granted_is_refused_with_the_words_that_grant_it",
    &["R-GRANT-01", "R-GRANT-03"],
    &[Guest::KeyValue],
    NODE,
    not_granted,
);

fn not_granted(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let application = scene
        .application("app")
        .with(SUBJECT, Guest::KeyValue, json!({}));
    let refusal = scene.refusal(&application)?;
    for words in ["wasi:keyvalue/store", "key_value: true"] {
        ensure!(refusal.contains(words), "no `{words}` in: {refusal}");
    }
    let granted = scene
        .application("app")
        .with(SUBJECT, Guest::KeyValue, granted(json!({})));
    scene.run(&granted)
}
