//! Two nodes on a network that loses, repeats, reorders, delays and parts, with crashes of either at
//! every step and the truth on their disks, and with copies of either that come and go. Everything that happens comes from a seed:
//! `HAAR_LINK_SEED=123 cargo test -p haar-link simulation` plays one again, and
//! `HAAR_LINK_SEEDS=1000000` plays more of them.

mod agents;
mod dice;
mod nodes;
mod totals;
mod world;

use world::World;

/// Seeds that are played, unless the environment says otherwise.
const SEEDS: u64 = 10_000;

#[test]
fn nothing_acknowledged_is_lost_nothing_comes_twice_or_out_of_order_and_all_of_it_comes() {
    #[allow(
        clippy::disallowed_methods,
        reason = "a test that is told which seed to play"
    )]
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().unwrap());
    let seeds = match number("HAAR_LINK_SEED") {
        Some(seed) => seed..=seed,
        None => 1..=number("HAAR_LINK_SEEDS").unwrap_or(SEEDS),
    };
    let mut totals = totals::Totals::default();
    for seed in seeds {
        let played = std::panic::catch_unwind(|| World::new(seed).play());
        match played {
            Ok(played) => totals.add(&played),
            Err(panic) => {
                eprintln!("seed {seed}: play it again with HAAR_LINK_SEED={seed}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    println!("{totals:?}");
    // A simulation in which nothing goes wrong proves nothing.
    for (what, times) in totals.faults() {
        assert!(times > 0, "no {what} in any seed");
    }
}
