//! Twenty thousand orders, undisturbed and disturbed in turns, for `scripts/campaign lanes`: in a release build, with
//! nothing else on the machine. Only the death differs: the same orders meet the same faults.

use recharged::providers::simulator::Dialect;

use super::figures::Figures;
use super::plan::{Death, Plan};
use super::stage::Stage;

const PAIRS: usize = 3;
/// The 99th percentile of the healthy lane, against that of an undisturbed run.
const SLOWER_AT_MOST: f64 = 1.2;
const IN_TIME: f64 = 0.999;

async fn played(plan: &Plan, nth: usize, is_disturbed: bool) -> Figures {
    let figures = Stage::set(plan).await.play(plan, is_disturbed).await.reckon(plan).await;
    println!("run {nth}, {}: {figures}", if is_disturbed { "disturbed" } else { "undisturbed" });
    figures
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

async fn prove(plan: Plan) {
    let (mut still, mut disturbed) = (Vec::new(), Vec::new());
    for nth in 1..=PAIRS {
        still.push(played(&plan, nth, false).await);
        disturbed.push(played(&plan, nth, true).await);
    }
    let compare = |what: &str, of: &dyn Fn(&Figures) -> f64| {
        let pairs: Vec<String> = still
            .iter()
            .zip(&disturbed)
            .map(|(still, disturbed)| format!("{:.3} and {:.3} s", of(still), of(disturbed)))
            .collect();
        let [still, disturbed] = [&still, &disturbed].map(|runs| median(runs.iter().map(of).collect()));
        let ratio = disturbed / still;
        println!("{what}: {}; medians {still:.3} and {disturbed:.3} s, ratio {ratio:.3}", pairs.join(", "));
        ratio
    };
    compare("p50 of the healthy lane", &|figures| figures.healthy.percentile(0.5));
    compare("p99 of its untroubled orders", &|figures| figures.plain.percentile(0.99));
    let meanwhile = compare("p99 of those sold meanwhile", &|figures| figures.meanwhile.percentile(0.99));
    let ratio = compare("p99 of the healthy lane", &|figures| figures.healthy.percentile(0.99));
    for figures in &disturbed {
        assert!(figures.rests > 0 && figures.went_on > 0, "nobody noticed a death: {figures}");
        assert!(figures.either.adherence() >= IN_TIME, "{figures}");
        assert!(figures.hurried.refunded > 0, "{figures}");
    }
    assert!(ratio <= SLOWER_AT_MOST && meanwhile <= SLOWER_AT_MOST, "{ratio}, and {meanwhile} of those sold meanwhile");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a hundred thousand orders, twenty minutes: scripts/campaign lanes"]
async fn dtone_is_killed() {
    prove(Plan::large(Dialect::Dtone, Death::Killed)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a hundred thousand orders, twenty minutes: scripts/campaign lanes"]
async fn mf178_takes_no_connection() {
    prove(Plan::large(Dialect::Mf178, Death::Refused)).await;
}
