//! `willis train propose`: the graph net that scores nodes of the vessel graph.

use std::path::Path;

use willis_imaging::trace::nodes::node_table;
use willis_nets::ops::cpu;
use willis_nets::propose::{GraphCase, ProposeNet, fit};
use willis_nets::weights::{Precision, Weights};

use super::{MARGIN_MM, TrainingCases, overlaid, show};
use crate::cases::mapped::CaseMapper;
use crate::cli::TrainArgs;
use crate::models::{PROPOSE, load_segment};
use crate::progress::Progress;

/// Traces the graphs of the training cases, trains the net on them and writes its weights.
pub fn run(args: &TrainArgs, models: &Path, progress: &Progress) -> anyhow::Result<()> {
    let set = TrainingCases::new(args, progress)?;
    let (net, sha256) = load_segment(models)?;
    let mapper = CaseMapper::new(net, &sha256, &set.config);
    let prepared = set.training()?;
    let bar = progress.bar("trace", prepared.len() as u64);
    let mut cases = Vec::new();
    for prepared in prepared {
        let mapped = mapper.load(prepared)?;
        let table = node_table(&mapped.graph, &mapped.map, &set.config.trace);
        if !table.points.is_empty() {
            cases.push(GraphCase::new(&table, &mapped.case.lesions, MARGIN_MM));
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let mut config = set.config.train.propose.clone();
    config.train = overlaid(&config.train, args);
    let bar = progress.bar("propose", config.train.steps as u64);
    let fitted = fit(&cases, &config, &args.output, &cpu(), show(&bar))?;
    bar.finish_and_clear();
    if fitted.finished {
        let weights = Weights::of(&fitted.net).described(&fitted.net.config(), ProposeNet::REVISION);
        weights.save(&args.output.join(PROPOSE), Precision::F16)?;
    }
    println!("{} of {} steps on {} graphs", fitted.step, config.train.steps, cases.len());
    Ok(())
}
