//! Random schemas, rows and plans: host kernel == plain interpreter == device kernel, also on roads that they would not choose.
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

/// Every way that a program may choose by its data, taken by force: narrow data on wide roads and few groups on those of many.
#[test]
fn every_choice_gives_the_same_answers() {
    let seed = environment("BOWSHOT_SEED", 20_280_101);
    let cases = environment("BOWSHOT_CASES", 150);
    println!("BOWSHOT_SEED={seed} BOWSHOT_CASES={cases}");
    let kernels = Kernels::open(KernelsConfig { device: DevicePolicy::AllowSoftware, ..KernelsConfig::default() });
    let available = kernels.device_report().available;
    let free = Forced::default();
    let on_host = [
        Forced { groups: Some(ForcedGroups::Direct), ..free },
        Forced { groups: Some(ForcedGroups::Few), ..free },
        Forced { groups: Some(ForcedGroups::Hash), ..free },
        Forced { value_bits: 64, unpacked: true, looks_at_rows: true, ..free },
        Forced { value_bits: 128, ..free },
        Forced { value_bits: 128, groups: Some(ForcedGroups::Hash), unpacked: true, ..free },
    ];
    let on_device = [
        Forced { value_bits: 64, all_limbs: true, looks_at_rows: true, ..free },
        Forced { value_bits: 128, global_totals: true, ..free },
        Forced { all_limbs: true, global_totals: true, ..free },
    ];
    let mut tally: BTreeMap<String, usize> = BTreeMap::new();
    for case in 0..cases {
        let found = run_forced(seed + case, &kernels, Executor::Host, &on_host);
        let found =
            found.into_iter().chain(if available { run_forced(seed + case, &kernels, Executor::Device, &on_device) } else { vec![] });
        found.for_each(|event| count_event(&mut tally, &event));
    }
    println!("{tally:#?}");
    let answered = tally.get("Host answered").copied().unwrap_or(0);
    assert!(cases < 100 || answered * 2 > cases as usize * on_host.len(), "too few ran: {answered} of {cases} cases");
}

fn run_forced(seed: u64, kernels: &Kernels, executor: Executor, choices: &[Forced]) -> Vec<String> {
    let random = &mut Random::new(seed);
    let Case { columns, groups, plan } = Case::new(random);
    let Ok(kernel) = kernels.plan(plan.clone()) else { return vec!["plan declined".into()] };
    let chunked = groups.iter().map(|rows| encode(random, &columns, rows)).collect::<Result<Vec<_>, _>>();
    let Ok(chunked) = chunked else { return vec!["encode declined".into()] };
    let mut expected = None;
    let mut run = |forced: &Forced| match accumulate(&kernel.clone().forced(*forced), executor, &chunked, random.chance(50)) {
        Ok(result) => {
            let expected = expected.get_or_insert_with(|| reference::run(&plan, &groups.concat()));
            let found = answers(&plan, &result);
            assert_eq!(&found, expected, "{executor:?} with {forced:?} differs; BOWSHOT_SEED={seed} BOWSHOT_CASES=1\n{plan:#?}");
            format!("{executor:?} answered")
        }
        Err(KernelError::Declined(decline)) => format!("{executor:?} declined: {}", decline.reason),
        Err(error) => panic!("{executor:?} with {forced:?}: {error}; BOWSHOT_SEED={seed} BOWSHOT_CASES=1\n{plan:#?}"),
    };
    choices.iter().map(&mut run).collect()
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
