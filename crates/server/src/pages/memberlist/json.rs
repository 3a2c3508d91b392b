//! The page as data: Cortex's JSON, and behind it all that this member reports.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ringkit_kv::memberlist::{MemberReport, MessageReport, Report};
use serde::Serialize;

use crate::pages::time::rfc3339;

/// Programs written for Cortex read all fields but the last one.
///
/// What has no counterpart here is empty: `Memberlist`, in Cortex the state of its library, and the versions of a protocol
/// that is not spoken.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Status<'a> {
    now: String,
    memberlist: Empty,
    sorted_members: Vec<Member<'a>>,
    store: BTreeMap<&'a str, Empty>,
    /// `null` without messages, as Go writes a slice that was never filled.
    sent_messages: Option<Vec<Message<'a>>>,
    received_messages: Option<Vec<Message<'a>>>,

    ringkit: &'a Report,
}

#[derive(Serialize)]
struct Empty {}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Member<'a> {
    name: &'a str,
    addr: String,
    port: u16,
    meta: Option<()>,
    state: u8,
    p_min: u8,
    p_max: u8,
    p_cur: u8,
    d_min: u8,
    d_max: u8,
    d_cur: u8,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Message<'a> {
    #[serde(rename = "ID")]
    id: u64,
    time: String,
    size: usize,
    pair: Pair<'a>,
    /// A count of changes of the key in Cortex; here the versions are those of single registers, which are no numbers.
    version: u64,
    changes: [&'a str; 1],
}

#[derive(Serialize)]
struct Pair<'a> {
    key: &'a str,
}

impl<'a> Status<'a> {
    pub(super) fn of(report: &'a Report) -> Self {
        let mut sorted_members: Vec<_> = report.members.iter().map(Member::of).collect();
        sorted_members.sort_by_key(|member| member.name);
        Self {
            now: rfc3339(moment(report.now_ms)),
            memberlist: Empty {},
            sorted_members,
            store: report.keys.iter().map(|key| (key.key.as_str(), Empty {})).collect(),
            sent_messages: messages(&report.sent),
            received_messages: messages(&report.received),
            ringkit: report,
        }
    }
}

impl<'a> Member<'a> {
    fn of(member: &'a MemberReport) -> Self {
        // An address that is none is shown as it is.
        let addr = member.addr.parse::<SocketAddr>();
        let (addr, port) =
            addr.map_or_else(|_| (member.addr.clone(), 0), |addr| (addr.ip().to_string(), addr.port()));
        Self {
            name: &member.name,
            addr,
            port,
            meta: None,
            state: state(&member.state),
            p_min: 0,
            p_max: 0,
            p_cur: 0,
            d_min: 0,
            d_max: 0,
            d_cur: 0,
        }
    }
}

/// The numbers of hashicorp/memberlist. A member that is down died or left: it is not known which.
fn state(state: &str) -> u8 {
    match state {
        "alive" => 0,
        "suspect" => 1,
        _ => 2,
    }
}

impl<'a> Message<'a> {
    fn of(message: &'a MessageReport) -> Self {
        let MessageReport { id, at_ms, key, entry, size, .. } = message;
        Self {
            id: *id,
            time: rfc3339(moment(*at_ms)),
            size: *size,
            pair: Pair { key },
            version: 0,
            changes: [entry],
        }
    }
}

fn messages(messages: &[MessageReport]) -> Option<Vec<Message<'_>>> {
    (!messages.is_empty()).then(|| messages.iter().map(Message::of).collect())
}

/// Milliseconds since 1970 as a point in time.
pub(super) fn moment(ms: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(ms)
}
