//! A stall in words: who waits for whom, and what can be done about it (spec 2.4).

use std::fmt::Write;
use std::time::Duration;

use crate::event::{Waiting, WaitsOn};
use crate::plan::{Plan, UnitId};
use crate::report::units::{Label, exact};

/// So many waits are told at most, and so many names in one: the events have all.
const MOST: usize = 6;

/// ``nothing has moved in 30s: `a` waits for room in queue `x`, which `b` does not read; `b` waits for ...``
pub fn stall(plan: &Plan, time: Duration, waits: &[Waiting]) -> String {
    // Looked at now and then: no more than seconds are known, where there are any.
    let time = match time.as_secs() {
        0 => Duration::from_millis(u64::from(time.subsec_millis())),
        seconds => Duration::from_secs(seconds),
    };
    let mut text = format!("nothing has moved in {}", exact(time));
    for (i, wait) in waits.iter().take(MOST).enumerate() {
        text.push_str(if i == 0 { ": " } else { "; " });
        text.push_str(&clause(plan, wait));
    }
    if let Some(more @ 1..) = waits.len().checked_sub(MOST) {
        let _ = write!(text, "; and {more} more");
    }
    text
}

fn clause(plan: &Plan, wait: &Waiting) -> String {
    let unit = Label::of(plan, wait.unit);
    let (what, queue, whose, nobody) = match wait.on {
        WaitsOn::Data(queue) => ("data of", queue, "write", "writes any more"),
        WaitsOn::Room(queue) => ("room in", queue, "read", "reads any more"),
        WaitsOn::Turn(queue) => {
            let queue = &plan.queue(queue).name;
            let before = names(plan, &wait.of);
            return format!("`{unit}` waits for its turn in queue `{queue}`, behind {before}");
        }
        WaitsOn::OwnPipe => {
            return match wait.of.as_slice() {
                [] => format!("`{unit}` waits on a pipe of its own"),
                [own] if *own == wait.unit => format!("`{unit}` waits on a pipe of its own"),
                of => format!(
                    "`{unit}` waits for {} on a pipe of their own",
                    names(plan, of)
                ),
            };
        }
    };
    let queue = &plan.queue(queue).name;
    match wait.of.as_slice() {
        [] => format!("`{unit}` waits for {what} queue `{queue}`, which no node {nobody}"),
        [one] => format!(
            "`{unit}` waits for {what} queue `{queue}`, which `{}` does not {whose}",
            Label::of(plan, *one)
        ),
        of => format!(
            "`{unit}` waits for {what} queue `{queue}`, which {} do not {whose}",
            names(plan, of)
        ),
    }
}

/// `` `a`, `b` and `c` ``
fn names(plan: &Plan, units: &[UnitId]) -> String {
    let shown: Vec<String> = units
        .iter()
        .take(MOST)
        .map(|&unit| format!("`{}`", Label::of(plan, unit)))
        .collect();
    match (shown.as_slice(), units.len() - shown.len()) {
        ([one], 0) => one.clone(),
        ([first @ .., last], 0) => format!("{} and {last}", first.join(", ")),
        (all, more) => format!("{} and {more} more", all.join(", ")),
    }
}

/// What the user can do about it, where that is known.
pub fn way_out(plan: &Plan, waits: &[Waiting]) -> Option<String> {
    let full = waits.iter().find_map(|wait| match wait.on {
        WaitsOn::Room(queue) if !wait.of.is_empty() && !plan.queue(queue).spills() => {
            Some(plan.queue(queue))
        }
        _ => None,
    });
    if let Some(queue) = full {
        return Some(format!(
            "`overflow = \"spill\"` under [queue.{}] lets who writes it go on",
            queue.name
        ));
    }
    let all_for_data = waits
        .iter()
        .all(|wait| matches!(wait.on, WaitsOn::Data(_)) && !wait.of.is_empty());
    all_for_data.then(|| {
        "what each waits for may still stand in another program's buffer: let it flush after each record (`stdbuf -oL`)"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::event::{Waiting, WaitsOn};
    use crate::plan::{QueueId, UnitId};
    use crate::report::stall::{stall, way_out};
    use crate::report::tests::plan;

    fn wait(unit: u32, on: WaitsOn, of: &[u32]) -> Waiting {
        Waiting {
            unit: UnitId(unit),
            on,
            of: of.iter().copied().map(UnitId).collect(),
        }
    }

    #[test]
    fn who_waits_for_whom() {
        let plan = plan(&["a", "b", "c"], &[("x", 0, 1), ("y", 0, 1)]);
        let (x, y) = (QueueId(0), QueueId(1));
        let each_other = [
            wait(0, WaitsOn::Room(x), &[1]),
            wait(1, WaitsOn::Data(y), &[0, 2]),
        ];
        assert_eq!(
            stall(&plan, Duration::from_millis(30_400), &each_other),
            "nothing has moved in 30s: `a` waits for room in queue `x`, which `b` does not read; \
             `b` waits for data of queue `y`, which `a` and `c` do not write"
        );
        assert_eq!(
            way_out(&plan, &each_other).as_deref(),
            Some("`overflow = \"spill\"` under [queue.x] lets who writes it go on")
        );

        let conversation = [
            wait(0, WaitsOn::Data(x), &[1]),
            wait(1, WaitsOn::Data(y), &[0]),
        ];
        assert_eq!(
            way_out(&plan, &conversation).as_deref(),
            Some(
                "what each waits for may still stand in another program's buffer: let it flush after each record (`stdbuf -oL`)"
            )
        );

        let own = [
            wait(0, WaitsOn::OwnPipe, &[0]),
            wait(1, WaitsOn::OwnPipe, &[0, 2]),
            wait(2, WaitsOn::Data(y), &[]),
            wait(2, WaitsOn::Turn(y), &[0]),
        ];
        assert_eq!(
            stall(&plan, Duration::from_millis(250), &own),
            "nothing has moved in 250ms: `a` waits on a pipe of its own; `b` waits for `a` and `c` on a pipe of their own; \
             `c` waits for data of queue `y`, which no node writes any more; `c` waits for its turn in queue `y`, behind `a`"
        );
        assert_eq!(way_out(&plan, &own), None);
    }

    #[test]
    fn a_crowd_is_counted() {
        let plan = plan(
            &["a", "b", "c", "d", "e", "f", "g", "h", "i"],
            &[("x", 0, 8)],
        );
        let x = QueueId(0);
        let mut waits: Vec<_> = (0..8)
            .map(|unit| wait(unit, WaitsOn::Room(x), &[8]))
            .collect();
        waits.push(wait(8, WaitsOn::Data(x), &[0, 1, 2, 3, 4, 5, 6]));
        waits.rotate_right(1);
        assert_eq!(
            stall(&plan, Duration::from_secs(60), &waits),
            "nothing has moved in 1m: `i` waits for data of queue `x`, which `a`, `b`, `c`, `d`, `e`, `f` and 1 more do not write; \
             `a` waits for room in queue `x`, which `i` does not read; `b` waits for room in queue `x`, which `i` does not read; \
             `c` waits for room in queue `x`, which `i` does not read; `d` waits for room in queue `x`, which `i` does not read; \
             `e` waits for room in queue `x`, which `i` does not read; and 3 more"
        );
    }
}
