//! Statistics of tenants, added up over the ingesters: `/api/v1/user_stats` and `/distributor/all_user_stats`.

use std::collections::BTreeMap;

use futures::future::{join_all, try_join_all};
use ringkit_proto::client::UserStatsResponse;
use ringkit_ring::Operation;
use serde::Serialize;

use crate::distributor::Distributor;
use crate::error::Refusal;
use crate::metrics::Call;
use crate::query::refusal;

/// One tenant's numbers, in Cortex's JSON.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct UserStats {
    #[serde(rename = "ingestionRate")]
    ingestion_rate: f64,
    #[serde(rename = "numSeries")]
    num_series: u64,
    #[serde(rename = "APIIngestionRate")]
    api_ingestion_rate: f64,
    #[serde(rename = "RuleIngestionRate")]
    rule_ingestion_rate: f64,
    #[serde(rename = "activeSeries")]
    active_series: u64,
    #[serde(rename = "loadedBlocks")]
    loaded_blocks: u64,
    #[serde(rename = "queriedIngesters")]
    queried_ingesters: u64,
}

/// A tenant and its numbers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct UserIdStats {
    #[serde(rename = "userID")]
    user_id: String,
    #[serde(flatten)]
    stats: UserStats,
}

/// What `/distributor/all_user_stats` tells.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct AllUserStats {
    pub(crate) stats: Vec<UserIdStats>,
    #[serde(rename = "replicationFactor")]
    pub(crate) replication_factor: usize,
    #[serde(rename = "queriedIngesterNum")]
    pub(crate) queried_ingesters: usize,
}

impl UserStats {
    fn add(&mut self, other: &UserStatsResponse) {
        self.ingestion_rate += other.ingestion_rate;
        self.num_series = self.num_series.saturating_add(other.num_series);
        self.api_ingestion_rate += other.api_ingestion_rate;
        self.rule_ingestion_rate += other.rule_ingestion_rate;
        self.active_series = self.active_series.saturating_add(other.active_series);
        self.loaded_blocks = self.loaded_blocks.saturating_add(other.loaded_blocks);
        self.queried_ingesters += 1;
    }
}

impl Distributor {
    /// One tenant's numbers, each series counted once: so every ingester that it has must answer.
    ///
    /// # Errors
    ///
    /// 5xx as soon as one ingester does not answer, or when too few can be asked.
    pub(crate) async fn user_stats(&self, tenant: &str) -> Result<UserStats, Refusal> {
        let (snapshot, now) = (self.ring.snapshot(), self.ring.clock().now_secs());
        let set = self
            .read_shard(&snapshot, tenant, None)
            .replication_set(Operation::READ, now)
            .map(|replicas| replicas.to_set())
            .map_err(|error| Refusal::new(500, error.to_string()))?;
        let timeout = self.config.distributor.remote_timeout;
        let asked = set.instances.iter().map(|instance| async move {
            let answer = self.ask_one(Call::UserStats, instance, self.ingesters.user_stats(instance, tenant));
            let elapsed = |_| Refusal::new(504, "an ingester has not answered in time");
            tokio::time::timeout(timeout, answer)
                .await
                .map_err(elapsed)?
                .map_err(|error| refusal(Some(error)))
        });
        let answers = try_join_all(asked).await?;
        let mut total = UserStats::default();
        answers.iter().for_each(|answer| total.add(answer));
        let factor = self.ring.options().replication_factor.max(1);
        total.ingestion_rate /= factor as f64;
        total.num_series /= factor as u64;
        total.active_series /= factor as u64;
        Ok(total)
    }

    /// All tenants' numbers, replicas counted as often as there are, the largest tenant first. Ingesters that do not
    /// answer are left out; how many did is told.
    ///
    /// # Errors
    ///
    /// 500 when the ring is empty.
    pub(crate) async fn all_user_stats(&self) -> Result<AllUserStats, Refusal> {
        let snapshot = self.ring.snapshot();
        let instances = snapshot
            .all_healthy(Operation::READ, self.ring.clock().now_secs())
            .map_err(|error| Refusal::new(500, error.to_string()))?;
        let timeout = self.config.distributor.remote_timeout;
        let asked = instances.iter().map(|instance| {
            let answer = self.ask_one(Call::AllUserStats, instance, self.ingesters.all_user_stats(instance));
            tokio::time::timeout(timeout, answer)
        });
        let answers: Vec<_> =
            join_all(asked).await.into_iter().filter_map(|answer| answer.ok()?.ok()).collect();
        let queried_ingesters = answers.len();
        let mut by_user: BTreeMap<String, UserStats> = BTreeMap::new();
        for user in answers.into_iter().flatten() {
            by_user.entry(user.user_id).or_default().add(&user.data.unwrap_or_default());
        }
        let mut stats: Vec<_> =
            by_user.into_iter().map(|(user_id, stats)| UserIdStats { user_id, stats }).collect();
        stats.sort_by_key(|user| std::cmp::Reverse(user.stats.num_series));
        Ok(AllUserStats {
            stats,
            replication_factor: self.ring.options().replication_factor,
            queried_ingesters,
        })
    }
}

impl AllUserStats {
    /// The page for people.
    pub(crate) fn html(&self) -> String {
        use std::fmt::Write as _;
        let mut rows = String::new();
        for UserIdStats { user_id, stats } in &self.stats {
            let user = user_id.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
            let (series, active, rate) = (stats.num_series, stats.active_series, stats.ingestion_rate);
            let _ = writeln!(
                rows,
                "<tr><td>{user}</td><td>{series}</td><td>{active}</td><td>{rate:.2}</td></tr>"
            );
        }
        let (factor, asked) = (self.replication_factor, self.queried_ingesters);
        format!(
            "<!DOCTYPE html><html><head><meta charset=\"UTF-8\"><title>Ingester Stats</title></head><body>\
             <h1>Ingester Stats</h1><p>{asked} ingesters have answered. Replication factor {factor}: \
             numbers count every replica.</p><table border=\"1\"><tr><th>User</th><th># Series</th>\
             <th># Active series</th><th>Ingest rate</th></tr>\n{rows}</table></body></html>\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_is_cortex() {
        let mut stats = UserStats::default();
        stats.add(&UserStatsResponse { num_series: 5, ingestion_rate: 1.5, ..UserStatsResponse::default() });
        let user = UserIdStats { user_id: "a".into(), stats };
        assert_eq!(
            serde_json::to_string(&user).unwrap(),
            r#"{"userID":"a","ingestionRate":1.5,"numSeries":5,"APIIngestionRate":0.0,"RuleIngestionRate":0.0,"activeSeries":0,"loadedBlocks":0,"queriedIngesters":1}"#
        );
    }

    #[test]
    fn the_page_takes_names_for_text() {
        let user = UserIdStats { user_id: "<script>".into(), stats: UserStats::default() };
        let page = AllUserStats { stats: vec![user], replication_factor: 3, queried_ingesters: 1 }.html();
        assert!(page.contains("&lt;script&gt;") && !page.contains("<script>"));
    }
}
