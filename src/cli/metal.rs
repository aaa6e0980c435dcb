//! What `doctor --metal` prints and `bench --report` writes of the machine's GPU.

use gristmill::metal::{About, Check, Examination, examine, open};
use serde_json::{Value as Json, json};

use super::Done;
use super::failure::Failure;
use super::output::{Out, size};

/// Every kernel on the machine's GPU, against the CPU.
pub fn examined() -> Done<Examination> {
    Ok(examine(open()?)?)
}

/// Prints what came of it; ends with an error where a kernel does not agree with the CPU.
pub fn tell(as_json: bool) -> Done {
    let examination = examined()?;
    let mut out = Out::new();
    if as_json {
        out.text(&format!("{:#}\n", json(&examination)))?;
    } else {
        let About { name, system, memory, memory_limit, .. } = &examination.about;
        out.heading(&format!(
            "{name}, {system}, {} of memory, of which {} for the GPU",
            size(*memory),
            size(*memory_limit)
        ))?;
        for check in &examination.checks {
            out.line(format_args!("{}", line(check)))?;
        }
    }
    match examination.faults() {
        0 => Ok(()),
        faults => {
            let all = examination.checks.len();
            Err(Failure::new(format!("{faults} of {all} operations do not give what the CPU gives")))
        }
    }
}

fn line(check: &Check) -> String {
    let kernels = check.kernels.join(" ");
    match &check.failed {
        Some(failed) => format!("failed   {}: {failed} ({kernels})", check.what),
        None if check.agrees() => format!("ok       {}: off by {:.1e} ({kernels})", check.what, check.worst),
        None => {
            let bound = Check::bound();
            format!(
                "differs  {}: off by {:.1e}, expected {bound:.0e} at most ({kernels})",
                check.what, check.worst
            )
        }
    }
}

/// All of it.
pub fn json(examination: &Examination) -> Json {
    let About { name, system, memory, memory_limit, buffer_limit } = &examination.about;
    let check = |check: &Check| {
        json!({
            "what": check.what,
            "kernels": check.kernels,
            "agrees": check.agrees(),
            "off_by": check.worst.is_finite().then_some(check.worst),
            "failed": check.failed,
        })
    };
    json!({
        "device": name,
        "system": system,
        "memory": memory,
        "memory_limit": memory_limit,
        "buffer_limit": buffer_limit,
        "bound": Check::bound(),
        "faults": examination.faults(),
        "checks": examination.checks.iter().map(check).collect::<Vec<_>>(),
    })
}
