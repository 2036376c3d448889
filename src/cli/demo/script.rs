//! What happens at the demo's upstream while one watches.
//!
//! The same steps in the same order, over and over. None of them empties anything or removes more than a guard lets pass.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::{task::JoinHandle, time::sleep};

use super::{
    content::LINKED,
    upstream::{ExperimentExt, State, Upstream, feature, rollout_feature},
};
use crate::clock;

/// Coverages that `search-suggestions-2026` climbs before it starts over in a new phase.
const COVERAGES: &[f64] = &[0.01, 0.02, 0.04, 0.08, 0.16];

/// Shares that `new-editor` is rolled out to, one after the other.
const SHARES: &[f64] = &[0.1, 0.25, 0.5, 0.75, 0.5, 0.25];

/// Phases kept of an experiment. GrowthBook keeps all; a demo may run for days.
const PHASES_MAX: usize = 8;

/// Kinds of step; step `n` is of kind `n % KINDS`, in its round `n / KINDS`.
const KINDS: usize = 5;

/// Changes something each `period`, until the upstream stops or the task is aborted.
pub fn spawn_script(upstream: &Upstream, period: Duration) -> JoinHandle<()> {
    let state = upstream.state();
    let stopped = upstream.stopped();
    tokio::spawn(async move {
        for number in 0.. {
            tokio::select! {
                () = stopped.cancelled() => return,
                () = sleep(period) => step(&state, number),
            }
        }
    })
}

/// Takes one step; the same number always does the same.
pub fn step(state: &State, number: usize) {
    let round = number / KINDS;
    match number % KINDS {
        0 => toggle_dark_mode(state, round),
        1 => widen_search_suggestions(state, round),
        2 => {
            let share = SHARES[(round + 1) % SHARES.len()];
            state.set_feature("new-editor", rollout_feature("new-editor", share));
        }
        3 => start_or_stop_sidebar(state, round),
        _ => announce(state, round),
    }
}

fn toggle_dark_mode(state: &State, round: usize) {
    state.set_feature("dark-mode", feature(round.is_multiple_of(2)));
}

fn widen_search_suggestions(state: &State, round: usize) {
    let coverage = COVERAGES[(round + 1) % COVERAGES.len()];
    let is_new_phase = (round + 1).is_multiple_of(COVERAGES.len());
    change(state, "search-suggestions-2026", |experiment| {
        if is_new_phase {
            let name = format!("Round {}", (round + 1) / COVERAGES.len() + 1);
            experiment.with_next_phase(&name, coverage)
        } else {
            experiment.with_coverage(coverage)
        }
    });
}

fn start_or_stop_sidebar(state: &State, round: usize) {
    change(state, "contents-sidebar-2026", |experiment| {
        if round.is_multiple_of(2) {
            experiment.stopped_at(clock::now())
        } else {
            let mut experiment = experiment
                .with_status("running")
                .with_next_phase("Again", 0.05);
            if let Some(members) = experiment.as_object_mut() {
                members.shift_remove("resultSummary");
            }
            experiment
        }
    });
}

fn announce(state: &State, round: usize) {
    let text = match round % 3 {
        0 => "Maintenance on Sunday, 06:00 UTC",
        1 => "Maintenance is under way",
        _ => "",
    };
    state.set_feature("maintenance-notice", feature(json!(text)));
}

/// Changes an experiment and the features that follow it.
fn change(state: &State, tracking_key: &str, change: impl Fn(Value) -> Value) {
    state.update_experiment(tracking_key, |experiment| {
        *experiment = change(experiment.take());
        if let Some(phases) = experiment["phases"].as_array_mut() {
            let surplus = phases.len().saturating_sub(PHASES_MAX);
            phases.drain(..surplus);
        }
    });
    let Some(experiment) = state.experiment(tracking_key) else {
        return;
    };
    for linked in LINKED.iter().filter(|l| l.experiment == tracking_key) {
        state.set_feature(linked.feature, linked.definition(&experiment));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::demo::content;

    #[tokio::test]
    async fn no_step_empties_anything_and_each_changes_something() {
        let upstream = Upstream::start(0).unwrap();
        content::fill(&upstream);
        let (features, experiments) = (upstream.features(), upstream.experiments());
        for number in 0..200 {
            let before = (upstream.features(), upstream.experiments());
            step(&upstream, number);
            assert_ne!(
                before,
                (upstream.features(), upstream.experiments()),
                "{number}"
            );
            assert_eq!(upstream.features().len(), features.len());
            assert_eq!(upstream.experiments().len(), experiments.len());
            let all = upstream.experiments();
            let running = all.iter().filter(|e| e["status"] == "running").count();
            assert!(running >= 4, "{running} running after step {number}");
        }
        let phases = &upstream.experiment("search-suggestions-2026").unwrap()["phases"];
        assert_eq!(phases.as_array().unwrap().len(), PHASES_MAX);
    }

    #[tokio::test]
    async fn a_linked_feature_follows_its_experiment() {
        let upstream = Upstream::start(0).unwrap();
        content::fill(&upstream);
        step(&upstream, 1);
        let rule = &upstream.features()["search-suggestions"]["rules"][0];
        assert_eq!(rule["coverage"], 0.02);
        assert_eq!(rule["key"], "search-suggestions-2026");
        assert_eq!(rule["variations"].as_array().unwrap().len(), 3);
        step(&upstream, 3);
        let rule = &upstream.features()["contents-sidebar"]["rules"][0];
        assert_eq!(rule["force"], false);
    }
}
