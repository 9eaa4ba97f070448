//! The kernels' random plans (`kernels/tests`) in DataFusion, which knows nothing of kernels: both must give the same groups and answers.
//! Distinct values are counted beside, as the lengths of lists of a second kernel's groups.
//!
//! `BOWSHOT_SEED=<seed> BOWSHOT_CASES=1 cargo test --release --workspace --test random_plans` replays one case.

#[path = "../../kernels/tests/case/mod.rs"]
#[expect(dead_code, reason = "answers without distinct values are what the kernels' own test asks for")]
mod case;
#[path = "../../kernels/tests/generator/mod.rs"]
mod generator;
mod in_datafusion;
#[path = "../../kernels/tests/reference/mod.rs"]
#[expect(dead_code, reason = "the plain interpreter is what the kernels' own test compares with")]
mod reference;

use std::collections::BTreeMap;

use bowshot_kernels::*;
use case::{Case, answers, cell, count_event, encode, environment, state};
use generator::{Random, predicate};
use in_datafusion::{Distinct, Groups};
use reference::Answer;

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
    let distincts = distincts(random, &case);
    let mut events = Vec::new();
    let mut expected = None;
    for executor in executors {
        let found = match run_kernels(random, kernels, &kernel, *executor, &chunked, &distincts) {
            Ok(found) => found,
            Err(KernelError::Declined(decline)) => {
                events.push(format!("{executor:?} declined: {}", decline.reason));
                continue;
            }
            Err(error) => panic!("{executor:?}: {error}; BOWSHOT_SEED={seed} BOWSHOT_CASES=1\n{:#?}", case.plan),
        };
        if expected.is_none() {
            expected = Some(in_datafusion::run(random, &case, &distincts).await);
        }
        match &expected {
            Some(Ok(expected)) => {
                let found = in_datafusion::in_its_types(&case.plan, found);
                assert_eq!(&found, expected, "{executor:?} differs; BOWSHOT_SEED={seed} BOWSHOT_CASES=1\n{:#?}\n{distincts:#?}", case.plan);
                events.push(format!("{executor:?} compared"));
                events.extend((!distincts.is_empty()).then(|| format!("{executor:?} compared with distinct values")));
            }
            Some(Err(error)) => events.push(format!("DataFusion failed: {error}")),
            None => {}
        }
    }
    events
}

/// Columns whose distinct values are counted, and filters of their own.
fn distincts(random: &mut Random, case: &Case) -> Vec<Distinct> {
    let columns: Vec<usize> = (0..case.columns.len()).filter(|column| case.columns[*column] != ColumnType::Float64).collect();
    if columns.is_empty() {
        return vec![];
    }
    let distinct = |random: &mut Random| {
        let filter = random.chance(40).then(|| predicate(random, &case.columns, 1));
        Distinct { column: *random.pick(&columns), filter }
    };
    (0..random.below(3)).map(|_| distinct(random)).collect()
}

/// The plan's answers, and behind them one count for each of `distincts`.
fn run_kernels(
    random: &mut Random,
    kernels: &Kernels,
    kernel: &Kernel,
    executor: Executor,
    chunked: &[RowGroup],
    distincts: &[Distinct],
) -> Result<Groups, KernelError> {
    let mut groups = state(kernel, executor, chunked, random.chance(50))?;
    let lists = distincts.iter().map(|distinct| {
        let plan = kernel.plan().distinct_values(distinct.column, distinct.filter.as_ref());
        let values = state(&kernels.plan(plan)?, executor, chunked, random.chance(50))?;
        groups.distinct_values(&values)
    });
    let lists = lists.collect::<Result<Vec<_>, _>>()?;
    let result = groups.finish()?;
    let mut found = answers(kernel.plan(), &result);
    for group in 0..result.group_count {
        let key: Vec<_> = result.keys.iter().map(|key| cell(key, group)).collect();
        let answers = found.get_mut(&key).unwrap_or_else(|| panic!("no answers for {key:?}"));
        answers.extend(lists.iter().map(|list| Answer::Count(list.value_length(group) as u64)));
    }
    Ok(found)
}
