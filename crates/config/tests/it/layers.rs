//! Defaults, files, environment and flags on top of each other.

use std::{path::PathBuf, time::Duration};

use ringkit_config::{Ask, AutoDuration, KvStore, Origin};

use crate::{lines, warnings, with};

struct File {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

fn file(text: &str) -> File {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.yaml");
    std::fs::write(&path, text).unwrap();
    File { _dir: dir, path }
}

impl std::fmt::Display for File {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.path.display())
    }
}

#[test]
fn flags_beat_the_environment_which_beats_files_which_beat_defaults() {
    let file = file("server: {http_listen_port: 1, grpc_listen_port: 2, log_level: warn}\n");
    let env = [("RINGKIT_SERVER__HTTP_LISTEN_PORT", "11"), ("RINGKIT_SERVER__GRPC_LISTEN_PORT", "12")];
    let loaded = with(&format!("-config.file={file} -server.http-listen-port=21"), &env).unwrap();
    let server = &loaded.config.server;
    assert_eq!((server.http_listen_port, server.grpc_listen_port), (21, 12));
    assert_eq!(server.log_level.as_str(), "warn");
    assert_eq!(server.http_listen_network, "tcp");
    assert_eq!(loaded.origins.of("server.http_listen_port"), Origin::Flag("-server.http-listen-port".into()));
    assert_eq!(
        loaded.origins.of("server.grpc_listen_port"),
        Origin::Env("RINGKIT_SERVER__GRPC_LISTEN_PORT".into())
    );
    assert_eq!(
        loaded.origins.of("server.log_level"),
        Origin::File { file: file.to_string().into(), line: 1, column: 63 }
    );
    assert_eq!(loaded.origins.of("server.http_listen_network"), Origin::Default);
}

#[test]
fn origins_are_shown_behind_every_value() {
    let file = file("server:\n  http_listen_port: 1\n");
    let env = [("RINGKIT_AUTH_ENABLED", "false")];
    let loaded = with(&format!("-config.file={file} -target ingester"), &env).unwrap();
    let shown = loaded.origins_yaml();
    for line in [
        "target: ingester  # flag -target".to_owned(),
        "auth_enabled: false  # env RINGKIT_AUTH_ENABLED".into(),
        format!("  http_listen_port: 1  # {file}:2"),
        "  grpc_listen_port: 9095  # default".into(),
        "server:".into(),
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line}\n---\n{shown}");
    }
}

#[test]
fn later_files_win_and_lists_in_them_replace() {
    let first = file("memberlist: {join_members: [a], bind_port: 1}\nauth_enabled: false\n");
    let second = file("memberlist: {join_members: [b]}\n");
    let loaded = with(&format!("-config.file {first} --config.file={second}"), &[]).unwrap();
    assert_eq!(loaded.config.memberlist.join_members, ["b"]);
    assert_eq!(loaded.config.memberlist.bind_port, 1);
    assert!(!loaded.config.auth_enabled);
    assert_eq!(loaded.files.len(), 2);
}

#[test]
fn flags_of_lists_append_and_can_be_repeated() {
    let file = file("memberlist: {join_members: [y1]}\n");
    let loaded = with(&format!("-config.file={file} -memberlist.join=f1 --memberlist.join f2"), &[]).unwrap();
    assert_eq!(loaded.config.memberlist.join_members, ["y1", "f1", "f2"]);
    let loaded = with("-ingester.lifecycler.interface=lo", &[]).unwrap();
    assert_eq!(loaded.config.ingester.lifecycler.interface_names, ["eth0", "en0", "lo"]);
    let env = [("RINGKIT_MEMBERLIST__JOIN_MEMBERS", "a, b")];
    assert_eq!(with("", &env).unwrap().config.memberlist.join_members, ["a", "b"]);
    let loaded = with("-distributor.excluded-zones=a -distributor.excluded-zones=b,c", &[]).unwrap();
    assert_eq!(loaded.config.ingester.lifecycler.ring.excluded_zones, ["b", "c"]);
}

#[test]
fn a_key_has_cortexs_flag_and_one_by_its_path() {
    for flag in [
        "-ingester.join-after=60s",
        "--ingester.join-after=60s",
        "--ingester.lifecycler.join-after=60s",
        "-ingester.lifecycler.join-after 60s",
    ] {
        let loaded = with(flag, &[]).unwrap();
        assert_eq!(
            loaded.config.ingester.lifecycler.join_after,
            AutoDuration::After(Duration::from_secs(60)),
            "{flag}"
        );
    }
    let loaded = with("-ingester.lifecycler.ID=a -store-gateway.sharding-ring.instance-id=b", &[]).unwrap();
    assert_eq!(loaded.config.ingester.lifecycler.id, "a");
    assert_eq!(loaded.config.store_gateway.sharding_ring.instance_id, "b");
}

#[test]
fn ring_store_as_a_flag_is_cortexs_and_as_a_key_the_default_of_all_rings() {
    let loaded = with("-ring.store=inmemory", &[]).unwrap();
    assert_eq!(loaded.config.ingester.lifecycler.ring.kvstore.store, KvStore::Inmemory);
    assert_eq!(loaded.config.ring.store, None);
    let loaded = with("-ring.default-store=inmemory", &[]).unwrap();
    assert_eq!(loaded.config.ring.store, Some(KvStore::Inmemory));
}

#[test]
fn booleans_may_stand_alone() {
    let loaded =
        with("-distributor.zone-awareness-enabled -auth.enabled=false --distributor.extend-writes=0", &[])
            .unwrap();
    assert!(loaded.config.ingester.lifecycler.ring.zone_awareness_enabled);
    assert!(!loaded.config.auth_enabled && !loaded.config.distributor.extend_writes);
}

#[test]
fn what_is_no_flag_is_handed_on() {
    let loaded = with("-target=ingester a -b c", &[]).unwrap();
    assert_eq!(loaded.rest, ["a", "-b", "c"]);
    assert_eq!(with("-target=ingester -- -b", &[]).unwrap().rest, ["-b"]);
}

#[test]
fn wrong_flags_are_told_all_at_once() {
    let error = with("-ingester.join-aftr=60s -ingester.heartbeat-period=5 -distributor.remote-timeout=1d -server.http-listen-port", &[])
        .unwrap_err();
    assert!(error.is_usage());
    let told = lines(&error);
    assert_eq!(told.len(), 4, "{told:#?}");
    assert_eq!(told[0], "flag -ingester.join-aftr: unknown flag (did you mean `-ingester.join-after`?)");
    assert!(told[1].contains(
        "flag -ingester.heartbeat-period: ingester.lifecycler.heartbeat_period: expected a duration"
    ));
    assert!(told[1].contains("did you mean `5s`?"), "{}", told[1]);
    assert!(told[2].contains("did you mean `24h`?"), "{}", told[2]);
    assert_eq!(told[3], "flag -server.http-listen-port: a value is missing");
    assert!(with("-ingester.heartbeat-period=0", &[]).is_ok());
    // A flag that is well written but breaks a rule is no matter of usage.
    assert!(!with("-distributor.replication-factor=0", &[]).unwrap_err().is_usage());
}

#[test]
fn flags_of_cortex_that_are_not_implemented_are_warned_about() {
    let loaded = with("-ruler.enable-sharding -querier.timeout 1m -target=ingester", &[]).unwrap();
    let told = warnings(&loaded);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].starts_with("flag -ruler.enable-sharding: "), "{told:?}");
    assert!(told[1].starts_with("flag -querier.timeout: "), "{told:?}");
    assert_eq!(loaded.config.target, ["ingester"]);
}

#[test]
fn wrong_variables_are_told_and_foreign_ones_left_alone() {
    let told = lines(
        &with("", &[("RINGKIT_SERVER__HTTP_LISTEN_PROT", "1"), ("RINGKIT_SERVER__LOG_LEVEL", "loud")])
            .unwrap_err(),
    );
    assert_eq!(
        told[0],
        "env RINGKIT_SERVER__HTTP_LISTEN_PROT: no key has this variable (did you mean `RINGKIT_SERVER__HTTP_LISTEN_PORT`?)"
    );
    assert!(
        told[1].starts_with("env RINGKIT_SERVER__LOG_LEVEL: server.log_level: `loud` is not one of"),
        "{told:?}"
    );
    let kubernetes = [("RINGKIT_SERVICE_HOST", "10.0.0.1"), ("RINGKIT_PORT_9009_TCP", "tcp://10.0.0.1:9009")];
    assert!(with("", &kubernetes).unwrap().warnings.is_empty());
    assert_eq!(warnings(&with("", &[("RINGKIT_TARGETS", "x")]).unwrap()).len(), 1);
}

#[test]
fn variables_in_a_file_are_replaced_when_asked_for() {
    let file = file("ingester: {lifecycler: {id: \"${NAME}-${ZONE:a}\", final_sleep: $SLEEP}}\n");
    let env = [("NAME", "ing"), ("SLEEP", "7s")];
    let loaded = with(&format!("-config.expand-env -config.file={file}"), &env).unwrap();
    assert_eq!(loaded.config.ingester.lifecycler.id, "ing-a");
    assert_eq!(loaded.config.ingester.lifecycler.final_sleep, Duration::from_secs(7));
    let told = lines(&with(&format!("-config.file={file}"), &env).unwrap_err());
    assert!(told[0].contains("found `$SLEEP`"), "{told:?}");
    let plain = self::file("ingester: {lifecycler: {id: \"${NAME}\"}}\n");
    let loaded = with(&format!("-config.file={plain}"), &env).unwrap();
    assert!(warnings(&loaded)[0].contains("-config.expand-env"), "{:?}", loaded.warnings);
}

#[test]
fn a_file_that_cannot_be_read_is_a_problem() {
    let error = with("-config.file=/nowhere/at/all.yaml", &[]).unwrap_err();
    assert!(error.to_string().starts_with("/nowhere/at/all.yaml: cannot read this file"), "{error}");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("latin1.yaml");
    std::fs::write(&path, b"target: \xff").unwrap();
    let error = with(&format!("-config.file={}", path.display()), &[]).unwrap_err();
    assert!(error.to_string().contains("not UTF-8, from byte 8 on"), "{error}");
}

#[test]
fn asking_for_help_needs_nothing_else_to_be_right() {
    assert_eq!(with("-bogus -help", &[]).unwrap().ask, Some(Ask::Help));
    assert_eq!(with("-version", &[]).unwrap().ask, Some(Ask::Version));
    assert_eq!(with("--modules", &[]).unwrap().ask, Some(Ask::Modules));
    assert_eq!(with("-print.config -target=ingester", &[]).unwrap().ask, Some(Ask::PrintConfig));
}
