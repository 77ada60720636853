//! Explores every small configuration: each promise must hold in every state, and each goal must be reached. The figures are
//! those of `./x model --small`.

use rdb_model::{Cluster, Configuration, configurations, explore};

/// More than any takes: what it guards against is one that grew out of bounds unnoticed.
const STEPS_MAX: usize = 4_000_000;

fn all_hold(is_one: impl Fn(&Configuration) -> bool) {
    let chosen: Vec<_> = configurations::small().into_iter().filter(is_one).collect();
    assert!(!chosen.is_empty());
    for configuration in chosen {
        let name = configuration.name;
        let outcome = explore(Cluster::new(configuration), STEPS_MAX, None);
        assert!(
            outcome.is_good(),
            "{name}: broken {:#?}, never reached {:?}",
            outcome.broken,
            outcome.missed
        );
    }
}

#[test]
fn to_strong() {
    all_hold(|one| one.name.starts_with("strong") || one.name == "patience" || one.name == "clocks");
}

#[test]
fn to_strong_without_a_node() {
    all_hold(|one| one.name.contains("exclude"));
}

#[test]
fn to_eventual() {
    all_hold(|one| one.name.starts_with("back") || one.name == "clocks-back");
}

#[test]
fn there_and_back() {
    all_hold(|one| {
        one.name.starts_with("round") && !one.name.contains("exclude") || one.name.starts_with("never-weaker")
    });
}

/// So that none is left out above.
#[test]
fn every_configuration_is_explored() {
    let prefixes = ["strong", "patience", "clocks", "exclude", "back", "round", "never-weaker"];
    for configuration in configurations::small() {
        let name = configuration.name;
        assert!(prefixes.iter().any(|prefix| name.starts_with(prefix)), "no test explores {name}");
    }
}
