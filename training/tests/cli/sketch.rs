//! Training in parts gives the bytes of training in one go.

use crate::folder::{Folder, SPEC};

/// A folder of so many logs, with a bad record in each.
fn with_logs(files: u32) -> Folder {
    let folder = Folder::new();
    for file in 0..files {
        let line = |at: u32| {
            let i = 1000 * file + at;
            let (duration, path) = (100 + i * 7919 % 1013, i * 31 % 7);
            format!("{{\"duration\":{duration},\"path\":\"/{path}\"}}\n")
        };
        let text: String = (0..80 + file).map(line).chain(["bad\n".to_owned()]).collect();
        folder.write(&format!("logs/{file:02}.jsonl"), text);
    }
    folder.write("spec.toml", SPEC);
    folder
}

#[test]
fn a_model_of_merged_sketches_is_the_model_of_all_logs() {
    let folder = with_logs(64);
    folder.ok("train --spec spec.toml --input logs --output whole.model");
    let whole = folder.bytes("whole.model");
    folder.ok("sketch --spec spec.toml --input logs --output whole.sketch");
    let whole_sketch = folder.bytes("whole.sketch");
    for ways in [1_usize, 2, 7, 64] {
        let parts: Vec<String> = (0..ways).map(|part| format!("{part}.sketch")).collect();
        for (part, name) in parts.iter().enumerate() {
            let logs: Vec<String> =
                (part..64).step_by(ways).map(|file| format!("logs/{file:02}.jsonl")).collect();
            folder
                .ok(&format!("sketch --spec spec.toml --input {} --output {name}", logs.join(" ")));
        }
        // The last first, and in two steps.
        let (some, others) = parts.split_at(ways / 2);
        let reversed: Vec<&str> = others.iter().rev().map(String::as_str).collect();
        folder.ok(&format!("merge {} --output some.sketch", reversed.join(" ")));
        let all: Vec<&str> =
            ["some.sketch"].into_iter().chain(some.iter().map(String::as_str)).collect();
        folder.ok(&format!("merge {} --output all.sketch", all.join(" ")));
        assert!(folder.bytes("all.sketch") == whole_sketch, "{ways} ways: another sketch");
        folder.ok("train --from-sketch all.sketch --output all.model");
        assert!(folder.bytes("all.model") == whole, "{ways} ways: another model");
    }
}

#[test]
fn training_goes_on_from_a_sketch_of_other_logs() {
    let folder = with_logs(4);
    folder.ok("train --spec spec.toml --input logs --trees 30 --samples 64 --output whole.model");
    let start =
        "sketch --spec spec.toml --trees 30 --samples 64 --input logs/00.jsonl logs/01.jsonl";
    folder.ok(&format!("{start} --output old.sketch"));
    let rest = "--spec spec.toml --trees 30 --samples 64 --input logs/02.jsonl logs/03.jsonl";
    folder.ok(&format!("train {rest} --base old.sketch --output new.model"));
    assert!(folder.bytes("new.model") == folder.bytes("whole.model"));
    folder.ok(&format!("sketch {rest} --base old.sketch --output new.sketch"));
    folder.ok("train --from-sketch new.sketch --output new.model");
    assert!(folder.bytes("new.model") == folder.bytes("whole.model"));
}

#[test]
fn a_sketch_goes_through_a_pipe() {
    let folder = with_logs(1);
    folder.ok("sketch --spec spec.toml --input logs --output by-name.sketch");
    let output = folder.run("sketch --spec spec.toml --input logs");
    assert!(output.stdout == folder.bytes("by-name.sketch"));
    let said = String::from_utf8(output.stderr).expect("text");
    assert!(said.contains("81"), "the counts are said beside it: {said}");
}

#[test]
fn what_cannot_be_merged_says_why_and_writes_nothing() {
    let folder = with_logs(3);
    let sketch = |name: &str, more: &str| {
        folder.ok(&format!("sketch --spec spec.toml --output {name} {more}"));
    };
    sketch("a", "--input logs/00.jsonl");
    sketch("b", "--input logs/01.jsonl logs/00.jsonl");
    sketch("c", "--input logs/02.jsonl --seed 1");
    let said = folder.fails("merge a b --output out");
    assert!(
        said.contains("sketch b") && said.contains("both have the input logs/00.jsonl"),
        "{said}"
    );
    let said = folder.fails("merge a c --output out");
    assert!(said.contains("sketch c") && said.contains("seed"), "{said}");
    folder.write("spec.toml", SPEC.replace("frequency", "one_hot"));
    sketch("d", "--input logs/02.jsonl");
    assert!(folder.fails("merge a d --output out").contains("specifications differ"));
    let mut damaged = folder.bytes("a");
    damaged[200] ^= 1;
    folder.write("damaged", &damaged);
    folder.write("text", "a line of text, long enough to be something\n");
    assert!(folder.fails("merge damaged --output out").contains("sketch damaged: checksum"));
    assert!(folder.fails("train --from-sketch text --output out").contains("not a sawlog sketch"));
    assert!(folder.fails("train --from-sketch none --output out").contains("sketch none"));
    assert!(folder.fails("merge a --output a").contains("output a is also an input"));
    assert!(!folder.path("out").exists());
}

#[test]
fn a_sketch_or_a_model_in_the_place_of_records_is_named_as_what_it_is() {
    let folder = with_logs(1);
    folder.ok("sketch --spec spec.toml --input logs --output sketch");
    folder.ok("train --from-sketch sketch --output model");
    for (input, what) in [
        (
            "sketch",
            "a sketch, which `sawlog merge` and `sawlog train --from-sketch` take, not records",
        ),
        ("model", "a model, not records"),
    ] {
        let want = format!("input {input}: it is {what}");
        let said = folder.fails(&format!("train --spec spec.toml --input {input} --output out"));
        assert!(said.contains(&want), "{said}");
        let seeds = "evaluate --model model --input logs --seeds 2 --train-input";
        let said = folder.fails(&format!("{seeds} {input}"));
        assert!(said.contains("--train-input") && said.contains(&want), "{said}");
    }
    // Its own inputs are what a model of a sketch was trained on.
    let said = folder.ok("evaluate --model model --input logs --seeds 2 --train-input logs");
    assert!(said.contains("2 models that differ in nothing else"), "{said}");
}

#[test]
fn too_many_rejects_in_all_parts_together_make_no_model() {
    let folder = with_logs(1);
    folder.write("bad", "bad\n".repeat(50));
    folder.ok("sketch --spec spec.toml --input bad logs --output sketch");
    let said = folder.fails("train --from-sketch sketch --output model");
    assert!(said.contains("51 of 131 records were rejected"), "{said}");
    folder.ok("train --from-sketch sketch --output model --max-reject-share 0.5");
}

#[test]
fn workers_sketch_parts_of_a_list_and_merge_what_comes_by_a_pipe() {
    let folder = with_logs(7);
    // Named as they stand: this is no glob, nor a folder.
    std::fs::rename(folder.path("logs/03.jsonl"), folder.path("logs/0*.jsonl")).expect("renamed");
    let listed = folder.ok("sketch --spec spec.toml --input logs --list");
    let want = |line: &str| {
        let (size, name) = line.split_once('\t').expect("a tab");
        assert_eq!(size.parse(), Ok(folder.bytes(name).len()), "{line}");
        name.to_owned()
    };
    let names: Vec<String> = listed.lines().map(want).collect();
    assert_eq!(names.len(), 7, "{listed}");
    assert!(names.contains(&"logs/0*.jsonl".to_owned()), "{listed}");
    let mut together = Vec::new();
    for (part, lines) in listed.lines().collect::<Vec<_>>().chunks(3).enumerate() {
        let list = format!("{part}.list");
        folder.write(&list, lines.join("\n"));
        folder.ok(&format!("sketch --spec spec.toml --input-list {list} --output sketch"));
        together.extend(folder.bytes("sketch"));
    }
    folder.write("together", &together);
    let merge = |bytes: &str| {
        let input = std::fs::File::open(folder.path(bytes)).expect("there");
        let output = folder.command("merge - --output all").stdin(input).output();
        let output = output.expect("it starts");
        (output.status.success(), String::from_utf8(output.stderr).expect("text"))
    };
    assert_eq!(merge("together"), (true, String::new()));
    folder.ok("sketch --spec spec.toml --input logs --output whole");
    assert!(folder.bytes("all") == folder.bytes("whole"));
    std::fs::remove_file(folder.path("all")).expect("removed");
    let broken: [(&str, &[u8], &str); 4] = [
        ("cut", &together[..together.len() - 1], "sketch 3 of standard input: sketch length"),
        ("more", &[&together[..], b"x"].concat(), "sketch 4 of standard input: sketch truncated"),
        (
            "text",
            b"a line of text, long enough to be something",
            "sketch 1 of standard input: not a",
        ),
        ("none", b"", "there is no sketch to merge"),
    ];
    for (name, bytes, why) in broken {
        folder.write(name, bytes);
        let (is_ok, said) = merge(name);
        assert!(!is_ok && said.contains(why), "{name}: {said}");
        assert!(!folder.path("all").exists(), "{name}");
    }
}

#[test]
fn a_list_that_is_none_says_where() {
    let folder = with_logs(1);
    for (list, why) in [
        ("", "list list: it names no input"),
        ("1\tlogs/00.jsonl\nlogs/01.jsonl\n", "list list: line 2: not bytes, a tab and a name"),
        ("1\tlogs/00.jsonl\n1\tlogs/00.jsonl\n", "list list: it has logs/00.jsonl twice"),
        ("1\tlogs\n", "input logs: "),
        ("1\tlogs/none\n", "input logs/none: "),
    ] {
        folder.write("list", list);
        let said = folder.fails("sketch --spec spec.toml --input-list list --output sketch");
        assert!(said.contains(why), "{said}");
        assert!(!folder.path("sketch").exists());
    }
    let said = folder.fails("sketch --spec spec.toml --input - --list");
    assert!(said.contains("standard input can't be listed"), "{said}");
}
