use super::*;

const ONE: &str = "MDEyMzQ1Njc4OWFiY2RlZg==";
const TWO: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

fn key(text: &str) -> ClusterKey {
    ClusterKey::from_bytes(&STANDARD.decode(text).unwrap()).unwrap()
}

#[test]
fn keys_are_read_in_order_and_never_repeated_in_errors() {
    let keys = configured(&[Secret::new(ONE), Secret::new(format!(" {TWO}\n"))]).unwrap();
    assert_eq!(keys, [key(ONE), key(TWO)]);
    for (bad, reason) in
        [("c2VjcmV0", "16, 24 or 32 bytes, not 6"), ("se!cret", "is not base64"), ("", "not 0")]
    {
        let error = configured(&[Secret::new(ONE), Secret::new(bad)]).unwrap_err().to_string();
        assert!(error.contains("encryption_keys") && error.contains("key 2"), "{error}");
        assert!(error.contains(reason) && !error.contains("cret"), "{error}");
    }
}

#[test]
fn a_file_has_one_key_a_line_and_remarks() {
    let keys = parse_file(&format!("# the new one\n{ONE}\n\n  {TWO}\n")).unwrap();
    assert_eq!(keys, [key(ONE), key(TWO)]);
    assert_eq!(parse_file("# nothing\n"), Err("holds no key".to_owned()));
    let error = parse_file(&format!("{ONE}\n#\nx\n")).unwrap_err();
    assert!(error.contains("line 3"), "{error}");
}

#[tokio::test]
async fn a_file_that_changes_is_told_once_it_is_read_twice() {
    let path = std::env::temp_dir().join(format!("ringkit-keys-{:016x}", rand::random::<u64>()));
    let name = path.display().to_string();
    let missing = KeysFile::open(&name).err().unwrap().to_string();
    assert!(missing.contains("encryption_keys_file") && missing.contains(&name), "{missing}");
    std::fs::write(&path, ONE).unwrap();
    let (mut file, keys) = KeysFile::open(&name).unwrap();
    assert_eq!(keys, [key(ONE)]);
    assert!(file.poll().await.is_none(), "it is as it was");
    std::fs::write(&path, TWO).unwrap();
    assert!(file.poll().await.is_none() && file.is_changing(), "whoever writes may not have finished");
    std::fs::write(&path, format!("{TWO}\n{ONE}")).unwrap();
    assert!(file.poll().await.is_none() && file.is_changing());
    assert_eq!(file.poll().await, Some(Ok(vec![key(TWO), key(ONE)])));
    assert!(file.poll().await.is_none() && !file.is_changing(), "once");
    // Something that is there for a moment only.
    std::fs::write(&path, "nonsense").unwrap();
    assert!(file.poll().await.is_none());
    std::fs::write(&path, format!("{TWO}\n{ONE}")).unwrap();
    assert!(file.poll().await.is_none() && !file.is_changing());
    std::fs::write(&path, "nonsense").unwrap();
    assert!(file.poll().await.is_none());
    assert!(matches!(file.poll().await, Some(Err(_))));
    std::fs::remove_file(&path).unwrap();
    assert!(file.poll().await.is_none());
    assert!(matches!(file.poll().await, Some(Err(_))));
    assert!(file.poll().await.is_none());
}
