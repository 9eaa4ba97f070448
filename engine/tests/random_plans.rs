//! The kernels' random plans (`kernels/tests`) in DataFusion, which knows nothing of kernels: both must give the same groups and answers.
//!
//! `BOWSHOT_SEED=<seed> BOWSHOT_CASES=1 cargo test --release --workspace --test random_plans` replays one case.

#[path = "../../kernels/tests/case/mod.rs"]
mod case;
#[path = "../../kernels/tests/generator/mod.rs"]
mod generator;
mod in_datafusion;
#[path = "../../kernels/tests/reference/mod.rs"]
#[expect(dead_code, reason = "the plain interpreter is what the kernels' own test compares with")]
mod reference;

use std::collections::BTreeMap;

use bowshot_kernels::*;
use case::{Case, accumulate, answers, count_event, encode, environment};
use generator::Random;

#[tokio::test]
async fn kernels_and_datafusion_agree() {
    let seed = environment("BOWSHOT_SEED", 20_270_101);
    let cases = environment("BOWSHOT_CASES", 300);
    println!("BOWSHOT_SEED={seed} BOWSHOT_CASES={cases}");
    let kernels = Kernels::open(KernelsConfig { device: DevicePolicy::AllowSoftware, ..KernelsConfig::default() });
    let mut executors = vec![Executor::Host];
    executors.extend(kernels.device_report().available.then_some(Executor::Device));
    let mut tally: BTreeMap<String, usize> = BTreeMap::new();
    for case in 0..cases {
        for event in run_case(seed + case, &kernels, &executors).await {
            count_event(&mut tally, &event);
        }
    }
    println!("{tally:#?}");
    for executor in &executors {
        let compared = tally.get(&format!("{executor:?} compared")).copied().unwrap_or(0);
        let wanted = if *executor == Executor::Host { cases / 2 } else { cases / 4 };
        assert!(cases < 100 || compared as u64 > wanted, "{compared} of {cases} cases compared on the {executor:?}");
    }
}

async fn run_case(seed: u64, kernels: &Kernels, executors: &[Executor]) -> Vec<String> {
    let random = &mut Random::new(seed);
    let case = Case::new(random);
    let kernel = match kernels.plan(case.plan.clone()) {
        Ok(kernel) => kernel,
        Err(decline) => return vec![format!("plan declined: {}", decline.reason)],
    };
    let chunked = case.groups.iter().map(|rows| encode(random, &case.columns, rows)).collect::<Result<Vec<_>, _>>();
    let chunked = match chunked {
        Ok(chunked) => chunked,
        Err(KernelError::Declined(decline)) => return vec![format!("encode declined: {}", decline.reason)],
        Err(error) => panic!("BOWSHOT_SEED={seed}: {error}"),
    };
    let mut events = Vec::new();
    let mut expected = None;
    for executor in executors {
        let found = match accumulate(&kernel, *executor, &chunked, random.chance(50)) {
            Ok(result) => answers(&case.plan, &result),
            Err(KernelError::Declined(decline)) => {
                events.push(format!("{executor:?} declined: {}", decline.reason));
                continue;
            }
            Err(error) => panic!("{executor:?}: {error}; BOWSHOT_SEED={seed} BOWSHOT_CASES=1\n{:#?}", case.plan),
        };
        if expected.is_none() {
            expected = Some(in_datafusion::run(random, &case).await);
        }
        match &expected {
            Some(Ok(expected)) => {
                let found = in_datafusion::in_its_types(&case.plan, found);
                assert_eq!(&found, expected, "{executor:?} differs; BOWSHOT_SEED={seed} BOWSHOT_CASES=1\n{:#?}", case.plan);
                events.push(format!("{executor:?} compared"));
            }
            Some(Err(error)) => events.push(format!("DataFusion failed: {error}")),
            None => {}
        }
    }
    events
}
