//! Members of one cluster whose datagrams travel in different ways, as while that is changed on one after the other.

use ringkit_config::PacketTransport;

use super::*;

/// Each has had answers to its datagrams from all others.
async fn understand_each_other(processes: &[Process]) {
    for process in processes {
        let answered = || async {
            let members = process.report().await.members;
            let all = members.len() == processes.len();
            let heard = members.iter().all(|member| member.own || member.rtt_ms.is_some());
            if all && heard { Ok(()) } else { Err(format!("{members:?}")) }
        };
        eventually_ok(SOON, answered).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_introduced_where_there_is_tls() {
    let certs = Certs::new(&["127.0.0.1"]).unwrap();
    let encrypted = |name: &str, keys: &[&str], seeds: &[&Process]| MemberlistConfig {
        tls_enabled: true,
        tls_cert_path: certs.path("server.pem").display().to_string(),
        tls_key_path: certs.path("server.key").display().to_string(),
        tls_ca_path: certs.path("ca.pem").display().to_string(),
        encryption_keys: keys.iter().map(|key| Secret::new(*key)).collect(),
        require_encryption: false,
        ..config(name, seeds)
    };
    let without = start(encrypted("without", &[], &[]));
    let with = start(encrypted("with", &[FIRST], &[&without]));
    with.joined().await;
    let transports = [without.report().await.transport, with.report().await.transport];
    assert_eq!(transports, ["tls", "udp+tls"]);
    let processes = [without, with];
    understand_each_other(&processes).await;
    for (process, other) in [(&processes[0], &processes[1]), (&processes[1], &processes[0])] {
        let name = process.member.name().to_owned();
        process.counters().upsert_own(KEY, &name, &1).await.unwrap();
        must_see(other, &name, Some(1)).await;
    }
    let remarked = || async {
        let remarks = processes[1].stores.remarks();
        let told = remarks.iter().any(|remark| remark.contains("Clear gossip is still accepted"));
        if told { Ok(()) } else { Err(remarks.join("\n")) }
    };
    eventually_ok(SOON, remarked).await.unwrap();
    assert!(!processes[1].report().await.requires_sealed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn datagrams_go_over_tcp_from_some_and_not_from_others() {
    let a = start(MemberlistConfig { packet_transport: PacketTransport::Tcp, ..config("tcp", &[]) });
    let b = start(MemberlistConfig { packet_transport: PacketTransport::Udp, ..config("udp", &[&a]) });
    b.joined().await;
    understand_each_other(&[a, b]).await;
}
