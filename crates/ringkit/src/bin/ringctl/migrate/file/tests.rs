use std::fs;

use ringkit_config::KvStore;

use super::*;

fn change(generation: u64) -> Change {
    Change { primary: KvStore::Memberlist, mirror_enabled: true, generation, force: false }
}

#[tokio::test]
async fn a_file_is_replaced_as_a_whole_with_its_mode_and_told_by_its_hash() {
    let dir = tempfile::tempdir().unwrap();
    let (real, link) = (dir.path().join("real.yaml"), dir.path().join("link.yaml"));
    fs::write(&real, "overrides: {}\n").unwrap();
    fs::set_permissions(&real, Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();

    let files = RuntimeFiles::read(link.to_str().unwrap()).await.unwrap();
    let hash = files.write(&change(2)).await.unwrap();
    let text = fs::read_to_string(&real).unwrap();
    assert!(text.starts_with("overrides: {}\n\nmulti_kv_config:\n"), "{text}");
    assert_eq!(fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o640);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    let again = RuntimeFiles::read(real.to_str().unwrap()).await.unwrap();
    assert_eq!((again.sha256.as_str(), again.said().unwrap().generation), (hash.as_str(), 2));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing is left over");
}

#[tokio::test]
async fn whoever_comes_second_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("runtime.yaml");
    fs::write(&path, "").unwrap();
    let name = path.to_str().unwrap();
    let (one, other) = (RuntimeFiles::read(name).await.unwrap(), RuntimeFiles::read(name).await.unwrap());
    assert_eq!(one.sha256, EMPTY);
    one.write(&change(1)).await.unwrap();
    let refused = other.write(&change(1)).await.unwrap_err();
    assert!(refused.contains("somebody else") && refused.contains("nothing was written"), "{refused}");

    let third = RuntimeFiles::read(name).await.unwrap();
    let held = File::open(&path).unwrap();
    held.lock().unwrap();
    assert!(third.write(&change(2)).await.unwrap_err().contains("somebody else"));
    held.unlock().unwrap();
    third.write(&change(2)).await.unwrap();
}

#[tokio::test]
async fn a_file_that_is_not_there_counts_as_empty_and_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("runtime.yaml");
    let name = path.to_str().unwrap();
    let (files, late) = (RuntimeFiles::read(name).await.unwrap(), RuntimeFiles::read(name).await.unwrap());
    assert_eq!((files.sha256.as_str(), files.name().as_str()), (EMPTY, name));
    files.write(&change(1)).await.unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), change(1).yaml());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
    assert!(late.write(&change(1)).await.unwrap_err().contains("somebody else"));
}

#[tokio::test]
async fn of_several_files_the_one_with_the_block_is_changed() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::write(path("a"), "multi_kv_config: {generation: 4}\n").unwrap();
    fs::write(path("b"), "overrides: {}\n").unwrap();
    let list = format!("{}, {}", path("a").display(), path("b").display());
    let files = RuntimeFiles::read(&list).await.unwrap();
    assert_eq!((files.name(), files.said().unwrap().generation), (path("a").display().to_string(), 4));
    files.write(&change(5)).await.unwrap();
    assert_eq!(fs::read_to_string(path("b")).unwrap(), "overrides: {}\n");

    fs::write(path("b"), "multi_kv_config: {}\n").unwrap();
    assert!(RuntimeFiles::read(&list).await.unwrap_err().contains("keep it in one of them"));
    fs::remove_file(path("b")).unwrap();
    assert!(RuntimeFiles::read(&list).await.unwrap_err().contains("cannot read this file"));
    fs::write(path("b"), [0xff]).unwrap();
    assert!(RuntimeFiles::read(path("b").to_str().unwrap()).await.unwrap_err().contains("not UTF-8"));
}

#[tokio::test]
async fn what_has_to_be_done_by_hand_is_said_with_what_to_write() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("runtime.yaml");
    fs::write(&path, "multi_kv_config: 5\n").unwrap();
    let files = RuntimeFiles::read(path.to_str().unwrap()).await.unwrap();
    let why = files.write(&change(1)).await.unwrap_err();
    assert!(why.contains("cannot be changed safely: ") && why.ends_with(&change(1).yaml()), "{why}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "multi_kv_config: 5\n");
}
