//! Random schemas, rows and plans: host kernel == plain interpreter == device kernel.
//!
//! `BOWSHOT_SEED=<seed> BOWSHOT_CASES=1 cargo test --release -p bowshot-kernels --test random_plans` replays one case.

mod case;
mod generator;
mod reference;

use std::collections::BTreeMap;

use bowshot_kernels::*;
use case::{Case, accumulate, answers, count_event, encode, environment};
use generator::Random;

#[test]
fn host_device_and_interpreter_agree() {
    let seed = environment("BOWSHOT_SEED", 20_260_101);
    let cases = environment("BOWSHOT_CASES", 2_000);
    println!("BOWSHOT_SEED={seed} BOWSHOT_CASES={cases}");
    let kernels = Kernels::open(KernelsConfig { device: DevicePolicy::AllowSoftware, ..KernelsConfig::default() });
    let report = kernels.device_report();
    println!("{report:?}");
    let mut tally: BTreeMap<String, usize> = BTreeMap::new();
    for case in 0..cases {
        let outcome = run_case(seed + case, &kernels, report.available);
        outcome.iter().for_each(|event| count_event(&mut tally, event));
    }
    println!("{tally:#?}\n{:?}", kernels.counters());
    if cases >= 100 {
        let host = tally.get("host answered").copied().unwrap_or(0);
        assert!(host * 2 > cases as usize, "too few cases ran: {host} of {cases}");
        if report.available {
            let device = tally.get("device answered").copied().unwrap_or(0);
            assert!(device * 4 > cases as usize, "too few cases ran on the device: {device} of {cases}");
        }
    }
}

fn run_case(seed: u64, kernels: &Kernels, device: bool) -> Vec<String> {
    let random = &mut Random::new(seed);
    let Case { columns, groups, plan } = Case::new(random);
    let mut events = Vec::new();
    let kernel = match kernels.plan(plan.clone()) {
        Ok(kernel) => kernel,
        Err(decline) => return vec![format!("plan declined: {}", decline.reason)],
    };
    let mut chunked = Vec::new();
    for rows in &groups {
        match encode(random, &columns, rows) {
            Ok(group) => chunked.push(group),
            Err(KernelError::Declined(decline)) => {
                return vec![format!("encode declined: {}", decline.reason)];
            }
            Err(error) => panic!("BOWSHOT_SEED={seed}: {error}"),
        }
    }
    let mut expected = None;
    for executor in [Executor::Host, Executor::Device] {
        if executor == Executor::Device && !device {
            continue;
        }
        let name = if executor == Executor::Host { "host" } else { "device" };
        match accumulate(&kernel, executor, &chunked, random.chance(50)) {
            Ok(result) => {
                events.push(format!("{name} answered"));
                let expected = expected.get_or_insert_with(|| reference::run(&plan, &groups.concat()));
                let found = answers(&plan, &result);
                assert_eq!(&found, expected, "{name} differs; BOWSHOT_SEED={seed} BOWSHOT_CASES=1\n{plan:#?}");
            }
            Err(KernelError::Declined(decline)) => events.push(format!("{name} declined: {}", decline.reason)),
            Err(error) => panic!("{name}: {error}; BOWSHOT_SEED={seed} BOWSHOT_CASES=1\n{plan:#?}"),
        }
    }
    events
}
