//! Idle namespaces: they sleep, cost nothing, and are there when they are wanted, also after a node's death.

use crate::support::{Cluster, Settings, until};

const NAMESPACES: u64 = 30;

fn name(number: u64) -> String {
    format!("idle-{number}")
}

async fn all_asleep(cluster: &Cluster, ids: &[u64]) {
    for id in ids {
        until("a node's idle regions sleep", async || {
            let (_, text) = cluster.node(*id).page("/metrics").await?;
            let asleep = text.lines().find_map(|line| line.strip_prefix("flaredb_regions_asleep "))?;
            (asleep.parse::<u64>().ok()? == NAMESPACES).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_namespaces_sleep_and_wake_when_they_are_used_or_lose_their_leader() {
    let options = "sleep_after_ms = 500".to_owned();
    let mut cluster = Cluster::start(Settings { options, ..Settings::default() }).await;
    let client = cluster.client().await;
    for number in 0..NAMESPACES {
        cluster.create(&client, &name(number)).await;
        client.namespace(&name(number)).put("key", number.to_string()).await.unwrap();
    }
    all_asleep(&cluster, &cluster.ids()).await;
    // Each is woken by a read or a write, through whichever node.
    for number in 0..NAMESPACES {
        let namespace = client.namespace(&name(number));
        assert_eq!(namespace.get("key").await.unwrap().unwrap().value, number.to_string());
        let raw = cluster.node(number % 3 + 1).raw();
        assert_eq!(raw.get(&name(number), "key", 3000).await.unwrap().value.unwrap(), number.to_string());
    }
    all_asleep(&cluster, &cluster.ids()).await;
    let (dead, rest) = (2, cluster.others(&[2]));
    let bereft: Vec<u64> = {
        let mut led = Vec::new();
        for number in 0..NAMESPACES {
            if cluster.leader(&name(number)).await == dead {
                led.push(number);
            }
        }
        led
    };
    assert!(!bereft.is_empty(), "leaders are not spread");
    cluster.kill(dead);
    for number in &bereft {
        cluster.leader_of(&name(*number), &rest).await;
        until("a write is acknowledged", async || {
            client.namespace(&name(*number)).put("key", "after").await.ok()
        })
        .await;
    }
    cluster.restart(dead).await;
    all_asleep(&cluster, &cluster.ids()).await;
    for number in bereft {
        let raw = cluster.node(dead).raw();
        assert_eq!(raw.get(&name(number), "key", 3000).await.unwrap().value.unwrap(), "after");
    }
    // All of them at once: nobody is left who could wake the others.
    for id in cluster.ids() {
        cluster.kill(id);
    }
    for id in cluster.ids() {
        cluster.launch(id);
    }
    for number in 0..NAMESPACES {
        cluster.leader(&name(number)).await;
    }
}
