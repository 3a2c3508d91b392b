use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

fn file(state: State, tokens: &[u32]) -> TokensFile {
    TokensFile { tokens: tokens.into(), previous_state: state }
}

fn active(tokens: &[u32]) -> TokensFile {
    file(State::Active, tokens)
}

/// A directory, and a tokens file in it that is not there yet.
fn place() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tokens");
    (directory, path)
}

fn names(directory: &TempDir) -> Vec<String> {
    let entries = fs::read_dir(directory.path()).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn problem_of(error: Error) -> Problem {
    match error {
        Error::TokensFile { problem, .. } => problem,
        other => panic!("{other}"),
    }
}

/// The file says 2, its previous copy 1.
fn saved_twice(path: &Path) {
    save(path, "a", &active(&[1])).unwrap();
    save(path, "a", &active(&[2])).unwrap();
}

#[test]
fn it_is_written_as_cortex_writes_it_with_two_more_fields() {
    let text = |file: &TokensFile, instance: Option<&str>| {
        String::from_utf8(render(file, instance).unwrap()).unwrap()
    };
    let (read_only, empty) = (file(State::ReadOnly, &[1, 2]), active(&[]));
    assert_eq!(text(&read_only, None), r#"{"previousState":"READONLY","tokens":[1,2]}"#);
    assert_eq!(text(&empty, None), r#"{"tokens":[]}"#);
    // Files that were written by earlier versions must still be good, so checksums are pinned here.
    assert_eq!(
        text(&read_only, Some("a")),
        r#"{"previousState":"READONLY","tokens":[1,2],"instance":"a","checksum":"crc32c:1345516b"}"#
    );
    assert_eq!(text(&empty, Some("a")), r#"{"tokens":[],"instance":"a","checksum":"crc32c:6446d9f6"}"#);
    assert_eq!(
        text(&active(&[1, 2]), Some("é\"\\\n")),
        r#"{"tokens":[1,2],"instance":"é\"\\\n","checksum":"crc32c:516e1466"}"#
    );
}

#[test]
fn what_cortex_and_dskit_write_is_read() {
    let cases = [
        (r#"{"tokens":[3,1,3]}"#, active(&[1, 3, 3])),
        (r#"{"previousState":"ACTIVE","tokens":null}"#, active(&[])),
        (r#"{"previousState":"READONLY","tokens":[1],"more":{}}"#, file(State::ReadOnly, &[1])),
        (r#"{"previousState":"NONSENSE"}"#, active(&[])),
        (r#"{"previousState":"LEAVING","tokens":[4294967295]}"#, active(&[u32::MAX])),
    ];
    for (text, expected) in cases {
        let stored = parse(text.as_bytes()).unwrap();
        assert_eq!((stored.file, stored.instance), (expected, None), "{text}");
    }
}

#[test]
fn files_are_read_and_written_again_as_by_cortex() {
    let vectors = include_str!("../../../ring/tests/vectors/primitives.json");
    let vectors: serde_json::Value = serde_json::from_str(vectors).unwrap();
    let cases = vectors["token_file"].as_array().unwrap();
    assert_eq!(cases.len(), 12);
    for case in cases {
        let read = parse(case["file_content"].as_str().unwrap().as_bytes());
        assert_eq!(read.is_err(), case["error"].is_string(), "{case}");
        let Ok(Stored { file: read, .. }) = read else { continue };
        assert_eq!(read.previous_state.to_string(), case["previous_state"].as_str().unwrap(), "{case}");
        let tokens: Option<Vec<u32>> = serde_json::from_value(case["tokens"].clone()).unwrap();
        assert_eq!(*read.tokens, tokens.clone().unwrap_or_default(), "{case}");
        let cortex = String::from_utf8(render(&read, None).unwrap()).unwrap();
        // No list and an empty one are the same here, and read as the same.
        let rewritten = if tokens.is_none() { cortex.replace("[]", "null") } else { cortex.clone() };
        assert_eq!(rewritten, case["rewritten_as"].as_str().unwrap(), "{case}");
        let marked = String::from_utf8(render(&read, Some("a")).unwrap()).unwrap();
        assert!(marked.starts_with(cortex.strip_suffix('}').unwrap()), "{marked}");
        assert_eq!(parse(marked.as_bytes()).unwrap().file, read);
    }
}

#[test]
fn what_is_no_tokens_file_is_an_error_that_names_the_file_and_leaves_it_alone() {
    let (_directory, path) = place();
    assert_eq!(load(&path, "a").unwrap(), None);
    let texts = [
        "",
        "[]",
        "{",
        "\0\0\0\0\0\0\0\0",
        r#"{"tokens":[-1]}"#,
        r#"{"tokens":[4294967296]}"#,
        r#"{"previousState":3}"#,
        r#"{"instance":3}"#,
        r#"{"checksum":3}"#,
        r#"{"checksum":""}"#,
    ];
    for text in texts {
        fs::write(&path, text).unwrap();
        let error = load(&path, "a").unwrap_err().to_string();
        assert!(error.contains(&path.display().to_string()), "{error}");
        assert!(error.contains("delete it"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
}

#[test]
fn a_file_that_is_cut_off_anywhere_is_found_out() {
    let file = file(State::ReadOnly, &[0, 10, u32::MAX]);
    for instance in [None, Some("ingester-a")] {
        let text = render(&file, instance).unwrap();
        for len in 0..text.len() {
            assert!(parse(&text[..len]).is_err(), "{len} bytes of {instance:?}'s");
            // A power loss may leave the length and lose the content.
            let mut zeros = text.clone();
            zeros[len..].fill(0);
            assert!(parse(&zeros).is_err(), "zeros from {len} in {instance:?}'s");
        }
        assert_eq!(parse(&text).unwrap().file, file);
    }
}

#[test]
fn a_single_flipped_bit_is_found_out_or_changes_nothing() {
    for file in [file(State::ReadOnly, &[0, 10, u32::MAX]), active(&[7]), active(&[])] {
        let text = render(&file, Some("ingester-a")).unwrap();
        for at in 0..text.len() {
            for bit in 0..8 {
                let mut flipped = text.clone();
                flipped[at] ^= 1_u8 << bit;
                let flipped_text = String::from_utf8_lossy(&flipped);
                match parse(&flipped).and_then(|stored| stored.of("ingester-a")) {
                    Ok(stored) => assert_eq!(stored.file, file, "{flipped_text}"),
                    // Nobody must be sent looking for an instance that does not exist.
                    Err(problem) => {
                        assert!(!matches!(problem, Problem::Foreign { .. }), "{flipped_text}: {problem}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_file_changed_by_hand_is_damaged_until_its_checksum_is_taken_out() {
    let text = String::from_utf8(render(&active(&[1, 2]), Some("a")).unwrap()).unwrap();
    let changed = text.replace("[1,2]", "[1,3]");
    let problem = parse(changed.as_bytes()).unwrap_err();
    assert!(matches!(problem, Problem::Damaged { .. }), "{problem}");
    assert!(problem.to_string().contains("take the checksum out"), "{problem}");
    let stored = parse(br#"{"tokens":[1,3],"instance":"a"}"#).unwrap();
    assert_eq!((stored.file, stored.instance.as_deref()), (active(&[1, 3]), Some("a")));
    // Neither the order nor white space nor others' fields are what the checksum is about.
    let sum = text.split("\"checksum\":").nth(1).unwrap();
    let reordered = format!("{{ \"more\": 1, \"instance\": \"a\", \"tokens\": [2, 1],\n\"checksum\": {sum}");
    assert_eq!(parse(reordered.as_bytes()).unwrap().file, active(&[1, 2]));
}

#[test]
fn another_instances_file_is_neither_used_nor_replaced() {
    let (directory, path) = place();
    saved_twice(&path);
    let before = fs::read(&path).unwrap();
    for error in [load(&path, "b").unwrap_err(), save(&path, "b", &active(&[3])).unwrap_err()] {
        let text = error.to_string();
        assert!(text.contains("`a`") && text.contains("`b`"), "{text}");
        assert!(
            matches!(problem_of(error), Problem::Foreign { owner, instance } if owner == "a" && instance == "b")
        );
    }
    assert!(load_or(&path, "b", OnCorrupt::Fail).is_err());
    for on_corrupt in [OnCorrupt::Ring, OnCorrupt::Previous, OnCorrupt::Regenerate] {
        let loaded = load_or(&path, "b", on_corrupt).unwrap();
        assert_eq!(loaded.file, None, "{on_corrupt:?}");
        assert_eq!(loaded.regenerate, on_corrupt == OnCorrupt::Regenerate);
        let problem = loaded.problem.unwrap().to_string();
        assert!(problem.contains("belongs to instance `a`"), "{problem}");
    }
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(names(&directory), ["tokens", "tokens.previous"]);
    assert_eq!(load(&path, "a").unwrap(), Some(active(&[2])));
    assert_eq!(load_previous(&path, "a").unwrap(), Some(active(&[1])));
}

#[test]
fn a_copy_that_names_nobody_is_not_used_beside_another_instances_file() {
    let (_directory, path) = place();
    // As after `a` went over from Cortex.
    fs::write(&path, r#"{"tokens":[1]}"#).unwrap();
    save(&path, "a", &active(&[2])).unwrap();
    assert_eq!(fs::read_to_string(previous_of(&path)).unwrap(), r#"{"tokens":[1]}"#);
    let loaded = load_or(&path, "b", OnCorrupt::Previous).unwrap();
    assert_eq!(loaded.file, None);
    assert!(matches!(problem_of(loaded.problem.unwrap()), Problem::BadPrevious { .. }));
    // For its owner it is as good as any.
    fs::write(&path, "").unwrap();
    assert_eq!(load_or(&path, "a", OnCorrupt::Previous).unwrap().file, Some(active(&[1])));
}

#[test]
fn another_instances_copy_is_left_alone_and_keeps_nobody_from_saving() {
    let (_directory, path) = place();
    save(&previous_of(&path), "b", &active(&[9])).unwrap();
    saved_twice(&path);
    assert_eq!(load(&path, "a").unwrap(), Some(active(&[2])));
    assert_eq!(load_previous(&path, "b").unwrap(), Some(active(&[9])));
    assert!(matches!(problem_of(load_previous(&path, "a").unwrap_err()), Problem::Foreign { .. }));
}

#[test]
fn a_directory_in_place_of_the_file_is_told_and_left_alone() {
    let (directory, path) = place();
    fs::create_dir(&path).unwrap();
    assert!(matches!(problem_of(load(&path, "a").unwrap_err()), Problem::NotAFile));
    assert!(matches!(problem_of(save(&path, "a", &active(&[1])).unwrap_err()), Problem::NotAFile));
    assert!(load_or(&path, "a", OnCorrupt::Ring).unwrap().problem.is_some());
    assert!(path.is_dir());
    assert_eq!(names(&directory), ["tokens"]);
}

#[test]
fn a_missing_directory_is_told_and_not_made() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("not").join("mounted");
    let path = missing.join("tokens");
    let expected = format!("`{}` does not exist: create it", missing.display());
    let told = |error: Error| {
        let text = error.to_string();
        assert!(text.contains(&expected), "{text}");
        assert!(matches!(problem_of(error), Problem::NoDirectory { .. }));
    };
    told(load(&path, "a").unwrap_err());
    told(save(&path, "a", &active(&[1])).unwrap_err());
    told(load_or(&path, "a", OnCorrupt::Fail).unwrap_err());
    for on_corrupt in [OnCorrupt::Ring, OnCorrupt::Previous, OnCorrupt::Regenerate] {
        let loaded = load_or(&path, "a", on_corrupt).unwrap();
        assert_eq!((loaded.file, loaded.regenerate), (None, false), "nothing was lost");
        told(loaded.problem.unwrap());
    }
    assert_eq!(names(&directory), [""; 0]);
}

#[test]
fn a_file_that_cannot_be_reached_is_told() {
    let (directory, path) = place();
    fs::write(&path, "a file").unwrap();
    let below = path.join("tokens");
    assert!(matches!(problem_of(load(&below, "a").unwrap_err()), Problem::Unreadable { .. }));
    assert!(matches!(problem_of(save(&below, "a", &active(&[1])).unwrap_err()), Problem::Unreadable { .. }));
    assert_eq!(names(&directory), ["tokens"]);
}

#[cfg(unix)]
#[test]
fn a_file_that_must_not_be_read_is_told_and_not_replaced() {
    use std::os::unix::fs::PermissionsExt as _;

    let (directory, path) = place();
    save(&path, "a", &active(&[1])).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    // The superuser reads everything.
    if fs::read(&path).is_ok() {
        return;
    }
    assert!(matches!(problem_of(load(&path, "a").unwrap_err()), Problem::Unreadable { .. }));
    let error = save(&path, "a", &active(&[2])).unwrap_err();
    assert!(matches!(problem_of(error), Problem::Unreadable { .. }));
    assert_eq!(load_or(&path, "a", OnCorrupt::Previous).unwrap().file, None);
    assert_eq!(names(&directory), ["tokens"]);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(load(&path, "a").unwrap(), Some(active(&[1])));
}

#[test]
fn a_file_far_too_large_is_neither_read_nor_replaced() {
    let (_directory, path) = place();
    File::create(&path).unwrap().set_len(MAX_FILE_BYTES + 1).unwrap();
    assert!(matches!(problem_of(load(&path, "a").unwrap_err()), Problem::TooLarge { .. }));
    assert!(matches!(problem_of(save(&path, "a", &active(&[1])).unwrap_err()), Problem::TooLarge { .. }));
    assert_eq!(fs::metadata(&path).unwrap().len(), MAX_FILE_BYTES + 1);
}

#[test]
fn what_takes_the_place_of_a_damaged_file_is_for_the_configuration_to_say() {
    let (_directory, path) = place();
    saved_twice(&path);
    fs::write(&path, r#"{"tokens":["#).unwrap();
    let load_or = |on_corrupt| load_or(&path, "a", on_corrupt);
    assert!(matches!(problem_of(load_or(OnCorrupt::Fail).unwrap_err()), Problem::NotTokens { .. }));
    let cases = [
        (OnCorrupt::Ring, None, false),
        (OnCorrupt::Previous, Some(active(&[1])), false),
        (OnCorrupt::Regenerate, None, true),
    ];
    for (on_corrupt, file, regenerate) in cases {
        let loaded = load_or(on_corrupt).unwrap();
        assert_eq!((loaded.file, loaded.regenerate), (file, regenerate), "{on_corrupt:?}");
        assert!(matches!(problem_of(loaded.problem.unwrap()), Problem::NotTokens { .. }), "{on_corrupt:?}");
    }
}

#[test]
fn a_damaged_file_is_replaced_without_taking_the_place_of_the_good_copy() {
    let (directory, path) = place();
    saved_twice(&path);
    fs::write(&path, r#"{"tokens":["#).unwrap();
    save(&path, "a", &active(&[3])).unwrap();
    assert_eq!(load(&path, "a").unwrap(), Some(active(&[3])));
    assert_eq!(load_previous(&path, "a").unwrap(), Some(active(&[1])));
    assert_eq!(names(&directory), ["tokens", "tokens.previous"]);
}

#[test]
fn when_the_copy_does_not_help_both_problems_are_told() {
    let (_directory, path) = place();
    fs::write(&path, "").unwrap();
    let loaded = load_or(&path, "a", OnCorrupt::Previous).unwrap();
    assert_eq!((loaded.file, loaded.regenerate), (None, false));
    let problem = loaded.problem.unwrap().to_string();
    assert!(
        problem.contains("not a tokens file") && problem.contains("there is no previous copy"),
        "{problem}"
    );

    let damaged = br#"{"tokens":[1],"checksum":"crc32c:00000000"}"#;
    fs::write(previous_of(&path), damaged).unwrap();
    let loaded = load_or(&path, "a", OnCorrupt::Previous).unwrap();
    assert_eq!((loaded.file, loaded.regenerate), (None, false));
    let problem = loaded.problem.unwrap().to_string();
    assert!(
        problem.contains("not a tokens file") && problem.contains("tokens.previous`: damaged"),
        "{problem}"
    );
}

#[test]
fn a_missing_file_is_no_problem_and_its_copy_is_not_asked() {
    let (_directory, path) = place();
    saved_twice(&path);
    // Deleting the file is how an operator makes an instance forget its tokens.
    fs::remove_file(&path).unwrap();
    for on_corrupt in [OnCorrupt::Fail, OnCorrupt::Ring, OnCorrupt::Previous, OnCorrupt::Regenerate] {
        let loaded = load_or(&path, "a", on_corrupt).unwrap();
        assert_eq!((loaded.file, loaded.regenerate), (None, false), "{on_corrupt:?}");
        assert!(loaded.problem.is_none(), "{on_corrupt:?}");
    }
}

#[test]
fn a_failed_save_leaves_the_previous_file() {
    let (directory, path) = place();
    saved_twice(&path);
    // The temporary file cannot be made where a directory is.
    fs::create_dir(directory.path().join("tokens.tmp")).unwrap();
    let error = save(&path, "a", &active(&[3])).unwrap_err().to_string();
    assert!(error.contains("tokens.tmp"), "{error}");
    assert_eq!(load(&path, "a").unwrap(), Some(active(&[2])));
    assert_eq!(load_previous(&path, "a").unwrap(), Some(active(&[1])));
}

/// Half of the text fits; `/dev/full` refuses the rest as a full disk does.
fn on_full_disk(file: &mut File, text: &[u8]) -> io::Result<()> {
    let (fits, rest) = text.split_at(text.len() / 2);
    io::Write::write_all(file, fits)?;
    let mut full = File::options().write(true).open("/dev/full")?;
    io::Write::write_all(&mut full, rest)
}

#[test]
fn a_full_disk_leaves_what_was_there_and_no_temporary_file() {
    let (directory, path) = place();
    assert!(save_by(&path, "a", &active(&[1]), on_full_disk).is_err());
    assert_eq!(names(&directory), [""; 0]);
    saved_twice(&path);
    let error = save_by(&path, "a", &active(&[3]), on_full_disk).unwrap_err();
    let Problem::Unsaved { at, cause } = problem_of(error) else { panic!("it cannot be saved") };
    assert_eq!(at, directory.path().join("tokens.tmp"));
    if Path::new("/dev/full").exists() {
        assert_eq!(cause.kind(), io::ErrorKind::StorageFull);
    }
    assert_eq!(load(&path, "a").unwrap(), Some(active(&[2])));
    assert_eq!(load_previous(&path, "a").unwrap(), Some(active(&[1])));
    assert_eq!(names(&directory), ["tokens", "tokens.previous"]);
}

#[test]
fn h27_what_a_crash_left_behind_is_not_read_and_goes_with_the_next_save() {
    let (directory, path) = place();
    for name in ["tokens.tmp", "tokens.previous.tmp"] {
        fs::write(directory.path().join(name), r#"{"tok"#).unwrap();
    }
    assert_eq!(load(&path, "a").unwrap(), None);
    saved_twice(&path);
    assert_eq!(load(&path, "a").unwrap(), Some(active(&[2])));
    assert_eq!(names(&directory), ["tokens", "tokens.previous"]);
}

#[test]
fn the_tokens_are_saved_even_where_no_copy_can_be_kept() {
    let (directory, path) = place();
    fs::create_dir(directory.path().join("tokens.previous")).unwrap();
    saved_twice(&path);
    assert_eq!(load(&path, "a").unwrap(), Some(active(&[2])));
    assert_eq!(names(&directory), ["tokens", "tokens.previous"]);
}

proptest! {
    #[test]
    fn what_is_saved_is_loaded(
        tokens in prop::collection::vec(any::<u32>(), 0..40),
        read_only in any::<bool>(),
        instance in prop::collection::vec(any::<char>(), 0..12),
    ) {
        let instance: String = instance.into_iter().collect();
        let (directory, path) = place();
        let state = if read_only { State::ReadOnly } else { State::Active };
        // In whatever order they are given.
        save(&path, &instance, &file(state, &tokens)).unwrap();
        save(&path, &instance, &file(state, &tokens)).unwrap();
        let mut sorted = tokens;
        sorted.sort_unstable();
        let expected = Some(file(state, &sorted));
        prop_assert_eq!(&load(&path, &instance).unwrap(), &expected);
        prop_assert_eq!(&load_previous(&path, &instance).unwrap(), &expected);
        prop_assert_eq!(names(&directory), ["tokens", "tokens.previous"], "no temporary file is left");
    }

    #[test]
    fn a_damaged_stretch_is_found_out_or_changes_nothing(
        tokens in prop::collection::vec(any::<u32>(), 0..40),
        at in any::<prop::sample::Index>(),
        damage in prop::collection::vec(any::<u8>(), 1..=4),
    ) {
        let mut sorted = tokens;
        sorted.sort_unstable();
        let file = active(&sorted);
        let mut text = render(&file, Some("ingester-a")).unwrap();
        let at = at.index(text.len());
        let end = text.len().min(at + damage.len());
        text[at..end].copy_from_slice(&damage[..end - at]);
        if let Ok(stored) = parse(&text) {
            prop_assert_eq!(stored.file, file);
        }
    }
}
