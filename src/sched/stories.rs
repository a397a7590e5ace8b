//! The scheduler's decisions as stories: what a user would see, event by event. What holds in all worlds is `sim`'s.

#![allow(clippy::unwrap_used, reason = "a test ends there")]

use std::time::Duration;

use crate::event::{Cause, Exit, Failure, Outcome};
use crate::plan::{GroupId, NodeId, Plan, QueueId, Sink, UnitId};
use crate::sched::draft::Draft;
use crate::sched::{Action, Event, Scheduler, Timer, Verdict};
use crate::spec::{AfterState, OnFailure};

/// A scheduler and what it said since the last look.
struct Story<'p> {
    scheduler: Scheduler<'p>,
    said: Vec<Action>,
}

impl<'p> Story<'p> {
    /// With eight slots, after `Begin`; every spawn is answered at once.
    fn begin(plan: &'p Plan, policy: OnFailure) -> Self {
        let mut story = Story {
            scheduler: Scheduler::new(plan, 8, None, policy, 1),
            said: Vec::new(),
        };
        story.on(Event::Begin);
        story
    }

    fn on(&mut self, event: Event) -> &mut Self {
        let from = self.said.len();
        self.scheduler.handle(event, &mut self.said);
        let spawned: Vec<GroupId> = self.said[from..]
            .iter()
            .filter_map(|action| {
                if let Action::Spawn { group, .. } = action {
                    Some(*group)
                } else {
                    None
                }
            })
            .collect();
        for group in spawned {
            for unit in self.scheduler.plan.groups[group.index()].units.clone() {
                let node = self.scheduler.plan.units[unit.index()].node;
                if !self.scheduler.plan.nodes[node.index()].is_left_out() {
                    self.scheduler.handle(Event::Spawned(unit), &mut self.said);
                }
            }
        }
        self
    }

    fn exit(&mut self, unit: u32, code: u8) -> &mut Self {
        self.on(Event::Exited {
            unit: UnitId(unit),
            exit: Exit::Code(code),
            broken: vec![],
            fault: None,
        })
    }

    fn signal(&mut self, unit: u32, number: i32) -> &mut Self {
        self.on(Event::Exited {
            unit: UnitId(unit),
            exit: Exit::Signal {
                number,
                core: false,
            },
            broken: vec![],
            fault: None,
        })
    }

    fn sigpipe(&mut self, unit: u32, broken: &[QueueId]) -> &mut Self {
        let exit = Exit::Signal {
            number: 13,
            core: false,
        };
        self.on(Event::Exited {
            unit: UnitId(unit),
            exit,
            broken: broken.to_vec(),
            fault: None,
        })
    }

    fn committed(&mut self, unit: u32) -> &mut Self {
        self.on(Event::Committed(UnitId(unit), Ok(())))
    }

    /// All that was said since the last look.
    fn says(&mut self, expected: &[Action]) -> &mut Self {
        assert_eq!(std::mem::take(&mut self.said), expected);
        self
    }
}

fn spawn(group: u32) -> Action {
    Action::Spawn {
        group: GroupId(group),
        attempt: 1,
    }
}

fn release(queue: QueueId, writer: u32) -> Action {
    Action::Release {
        queue,
        writer: UnitId(writer),
        torn: false,
    }
}

fn ended(unit: u32, outcome: Outcome) -> Action {
    Action::Ended(UnitId(unit), outcome)
}

fn group_ended(group: u32) -> Action {
    Action::GroupEnded(GroupId(group))
}

fn well() -> Outcome {
    Outcome::Succeeded { early_close: false }
}

fn early() -> Outcome {
    Outcome::Succeeded { early_close: true }
}

fn failed(code: u8) -> Outcome {
    Outcome::Failed(Failure::Exit(Exit::Code(code)))
}

fn writer(node: u32, root: u32) -> Cause {
    Cause::Writer {
        node: NodeId(node),
        root: NodeId(root),
    }
}

fn reader(node: u32, root: u32) -> Cause {
    Cause::Reader {
        node: NodeId(node),
        root: NodeId(root),
    }
}

fn after(node: u32, root: u32) -> Outcome {
    Outcome::Skipped(Cause::After {
        node: NodeId(node),
        root: NodeId(root),
    })
}

fn stop(unit: u32) -> [Action; 2] {
    [
        Action::Stop(UnitId(unit)),
        Action::Arm(Timer::Grace(UnitId(unit)), Duration::from_secs(5)),
    ]
}

fn calm(unit: u32) -> Action {
    Action::Disarm(Timer::Grace(UnitId(unit)))
}

fn finish(verdict: Verdict) -> Action {
    Action::Finish(verdict)
}

#[test]
fn an_empty_plan_is_done_at_once() {
    let plan = Draft::default().plan();
    Story::begin(&plan, OnFailure::Stop).says(&[finish(Verdict::Succeeded)]);
}

#[test]
fn a_reader_sees_the_end_of_data_when_its_writer_has_succeeded() {
    let mut draft = Draft::default();
    let [a, b] = draft.nodes();
    let q = draft.pipe(&[a], &[b]);
    let plan = draft.plan();
    let mut story = Story::begin(&plan, OnFailure::Stop);
    story.says(&[spawn(0)]);
    story.exit(a, 0).says(&[release(q, a), ended(a, well())]);
    story
        .exit(b, 0)
        .says(&[ended(b, well()), group_ended(0), finish(Verdict::Succeeded)]);
}

#[test]
fn head_is_no_failure_of_its_writer_whoever_is_seen_to_end_first() {
    let mut draft = Draft::default();
    let [yes, head] = draft.nodes();
    let q = draft.pipe(&[yes], &[head]);
    let plan = draft.plan();

    let mut story = Story::begin(&plan, OnFailure::Stop);
    story.says(&[spawn(0)]);
    story.sigpipe(yes, &[q]).says(&[]);
    let rest = [
        ended(head, well()),
        release(q, yes),
        ended(yes, early()),
        group_ended(0),
        finish(Verdict::Succeeded),
    ];
    story.exit(head, 0).says(&rest);

    let mut story = Story::begin(&plan, OnFailure::Stop);
    story.exit(head, 0).says(&[spawn(0), ended(head, well())]);
    story.sigpipe(yes, &[q]).says(&rest[1..]);
}

#[test]
fn a_chain_of_broken_pipes_ends_well_from_its_reader_up() {
    let mut draft = Draft::default();
    let [a, b, head] = draft.nodes();
    let (q, r) = (draft.pipe(&[a], &[b]), draft.pipe(&[b], &[head]));
    let plan = draft.plan();
    let mut story = Story::begin(&plan, OnFailure::Stop);
    story.sigpipe(b, &[r]).sigpipe(a, &[q]).says(&[spawn(0)]);
    story.exit(head, 0).says(&[
        ended(head, well()),
        release(r, b),
        ended(b, early()),
        release(q, a),
        ended(a, early()),
        group_ended(0),
        finish(Verdict::Succeeded),
    ]);
}

#[test]
fn an_epipe_code_without_a_broken_queue_is_a_failure() {
    let mut draft = Draft::default();
    let a = draft.node();
    let plan = draft.plan();
    let mut story = Story::begin(&plan, OnFailure::Stop);
    story.says(&[spawn(0)]);
    story.exit(a, 141).says(&[
        ended(a, failed(141)),
        group_ended(0),
        Action::Stopping(Cause::RunFailed(NodeId(a))),
        finish(Verdict::Failed),
    ]);
}

#[test]
fn a_crash_never_looks_like_the_end_of_data() {
    let mut draft = Draft::default();
    let [a, b, c] = draft.nodes();
    draft.pipe(&[a], &[b]);
    draft.pipe(&[b], &[c]);
    let plan = draft.plan();
    let mut story = Story::begin(&plan, OnFailure::Stop);
    story.says(&[spawn(0)]);
    let [stop_b, arm_b] = stop(b);
    story.exit(a, 3).says(&[
        ended(a, failed(3)),
        stop_b,
        arm_b,
        Action::Stopping(Cause::RunFailed(NodeId(a))),
    ]);
    let [stop_c, arm_c] = stop(c);
    story.signal(b, 15).says(&[
        calm(b),
        ended(b, Outcome::Cancelled(writer(a, a))),
        stop_c,
        arm_c,
    ]);
    story.exit(c, 0).says(&[
        calm(c),
        ended(c, Outcome::Cancelled(writer(b, a))),
        group_ended(0),
        finish(Verdict::Failed),
    ]);
}

#[test]
fn a_closed_queue_ends_with_its_writer_in_the_shells_way() {
    let mut draft = Draft::default();
    let [a, b] = draft.nodes();
    let q = draft.pipe(&[a], &[b]);
    draft.queues[0].close = true;
    draft.at(b).outputs.push(vec![Draft::file()]);
    let plan = draft.plan();
    let mut story = Story::begin(&plan, OnFailure::Continue);
    story.says(&[spawn(0)]);
    let torn = Action::Release {
        queue: q,
        writer: UnitId(a),
        torn: true,
    };
    story.exit(a, 1).says(&[torn, ended(a, failed(1))]);
    story.exit(b, 0).says(&[Action::Commit(UnitId(b))]);
    story
        .committed(b)
        .says(&[ended(b, well()), group_ended(0), finish(Verdict::Failed)]);
}

#[test]
fn a_failed_reader_cancels_its_writer_but_not_one_with_readers_left() {
    let mut draft = Draft::default();
    let [a, b, c] = draft.nodes();
    draft.pipe(&[a], &[b, c]);
    let plan = draft.plan();
    let mut story = Story::begin(&plan, OnFailure::Continue);
    story.says(&[spawn(0)]);
    story.exit(b, 1).says(&[ended(b, failed(1))]);
    let [stop_a, arm_a] = stop(a);
    story.exit(c, 2).says(&[ended(c, failed(2)), stop_a, arm_a]);
    story.signal(a, 15).says(&[
        calm(a),
        ended(a, Outcome::Cancelled(reader(b, b))),
        group_ended(0),
        finish(Verdict::Failed),
    ]);
}

#[test]
fn a_copy_in_a_file_keeps_its_writer_going() {
    let mut draft = Draft::default();
    let [a, b] = draft.nodes();
    let q = draft.pipe(&[a], &[b]);
    draft.at(a).outputs = vec![vec![Sink::Queue(q), Draft::file()]];
    let plan = draft.plan();
    let mut story = Story::begin(&plan, OnFailure::Continue);
    story.exit(b, 1).says(&[spawn(0), ended(b, failed(1))]);
    story.exit(a, 0).says(&[Action::Commit(UnitId(a))]);
    story.committed(a).says(&[
        release(q, a),
        ended(a, well()),
        group_ended(0),
        finish(Verdict::Failed),
    ]);
}

#[test]
fn two_waits_that_cross_yes_head_file() {
    let mut draft = Draft::default();
    let [yes, head] = draft.nodes();
    let q = draft.pipe(&[yes], &[head]);
    draft.at(head).outputs.push(vec![Draft::file()]);
    let plan = draft.plan();
    let mut story = Story::begin(&plan, OnFailure::Stop);
    story.says(&[spawn(0)]);
    story.exit(head, 0).says(&[]);
    story.sigpipe(yes, &[q]).says(&[
        release(q, yes),
        ended(yes, early()),
        Action::Commit(UnitId(head)),
    ]);
    story.committed(head).says(&[
        ended(head, well()),
        group_ended(0),
        finish(Verdict::Succeeded),
    ]);
}

#[test]
fn a_file_is_lost_by_a_crash_upstream_of_a_unit_that_ended_well() {
    let mut draft = Draft::default();
    let [a, b, c] = draft.nodes();
    draft.pipe(&[a], &[b]);
    let r = draft.pipe(&[b], &[c]);
    draft.at(c).outputs.push(vec![Draft::file()]);
    let plan = draft.plan();
    let mut story = Story::begin(&plan, OnFailure::Continue);
    story
        .exit(b, 0)
        .says(&[spawn(0), release(r, b), ended(b, well())]);
    story.exit(c, 0).says(&[]);
    story.exit(a, 9).says(&[
        ended(a, failed(9)),
        Action::Discard(UnitId(c)),
        ended(c, Outcome::Cancelled(writer(a, a))),
        group_ended(0),
        finish(Verdict::Failed),
    ]);
}

#[test]
fn a_file_that_cannot_be_put_in_place_is_a_failure() {
    let mut draft = Draft::default();
    let a = draft.node();
    draft.at(a).outputs.push(vec![Draft::file()]);
    let plan = draft.plan();
    let mut story = Story::begin(&plan, OnFailure::Continue);
    story
        .exit(a, 0)
        .says(&[spawn(0), Action::Commit(UnitId(a))]);
    story
        .on(Event::Committed(UnitId(a), Err("disk full".to_owned())))
        .says(&[
            Action::Discard(UnitId(a)),
            ended(a, Outcome::Failed(Failure::Result("disk full".to_owned()))),
            group_ended(0),
            finish(Verdict::Failed),
        ]);
}

#[test]
fn a_reader_that_lingers_while_its_writer_owes_it_another_queue() {
    let mut draft = Draft::default();
    let [a, b] = draft.nodes();
    let q = draft.pipe(&[a], &[b]);
    draft.pipe(&[a], &[b]);
    let plan = draft.plan();
    let mut story = Story::begin(&plan, OnFailure::Continue);
    // `b` closed `q` and waits for the end of the other; `a` died of it.
    story.sigpipe(a, &[q]).says(&[
        spawn(0),
        Action::Arm(Timer::Grace(UnitId(a)), Duration::from_secs(5)),
    ]);
    let [stop_b, arm_b] = stop(b);
    let failure = Outcome::Failed(Failure::Exit(Exit::Signal {
        number: 13,
        core: false,
    }));
    story
        .on(Event::Fired(Timer::Grace(UnitId(a))))
        .says(&[ended(a, failure), stop_b, arm_b]);
}

#[test]
fn a_group_is_retried_as_a_whole_with_growing_delays() {
    let mut draft = Draft::default();
    let [a, b, c] = draft.nodes();
    let q = draft.pipe(&[a], &[b]);
    draft.at(b).retry.max = 2;
    draft.at(b).outputs.push(vec![Draft::file()]);
    draft.after(c, a, AfterState::Succeeded);
    let plan = draft.plan();
    let mut story = Story::begin(&plan, OnFailure::Stop);
    let again = |attempt: u32, seconds: u64| {
        [
            Action::Discard(UnitId(b)),
            group_ended(0),
            Action::Retrying {
                unit: UnitId(b),
                attempt,
                failure: Failure::Exit(Exit::Code(1)),
                delay: Duration::from_secs(seconds),
            },
            Action::Arm(Timer::Backoff(GroupId(0)), Duration::from_secs(seconds)),
        ]
    };
    // `a` has done its work, which counts for nothing yet: `c` does not start.
    story.exit(a, 0).says(&[spawn(0), release(q, a)]);
    story.exit(b, 1).says(&again(1, 1));
    story
        .on(Event::Fired(Timer::Backoff(GroupId(0))))
        .says(&[Action::Spawn {
            group: GroupId(0),
            attempt: 2,
        }]);
    // This time `a` still runs when `b` fails.
    let [stop_a, arm_a] = stop(a);
    story.exit(b, 1).says(&[stop_a, arm_a]);
    let [discard, rest @ ..] = again(2, 2);
    story
        .signal(a, 15)
        .says(&[vec![calm(a), discard], rest.to_vec()].concat());
    story
        .on(Event::Fired(Timer::Backoff(GroupId(0))))
        .says(&[Action::Spawn {
            group: GroupId(0),
            attempt: 3,
        }]);
    story.exit(a, 0).says(&[release(q, a)]);
    story
        .exit(b, 0)
        .says(&[ended(a, well()), Action::Commit(UnitId(b)), spawn(1)]);
    story.committed(b).says(&[ended(b, well()), group_ended(0)]);
    story
        .exit(c, 0)
        .says(&[ended(c, well()), group_ended(1), finish(Verdict::Succeeded)]);
}

#[test]
fn no_tries_left_and_codes_that_are_not_retried() {
    let mut draft = Draft::default();
    let [a, b] = draft.nodes();
    draft.at(a).retry.max = 1;
    draft.at(b).retry.max = 1;
    draft.at(b).retry.on_codes = vec![75];
    let plan = draft.plan();
    let mut story = Story::begin(&plan, OnFailure::Continue);
    story
        .exit(a, 1)
        .on(Event::Fired(Timer::Backoff(GroupId(0))))
        .said
        .clear();
    story
        .exit(a, 2)
        .says(&[ended(a, failed(2)), group_ended(0)]);
    story
        .exit(b, 1)
        .says(&[ended(b, failed(1)), group_ended(1), finish(Verdict::Failed)]);
}

#[test]
fn a_command_that_cannot_be_started_takes_its_group_with_it() {
    let mut draft = Draft::default();
    let [a, b, c] = draft.nodes();
    draft.pipe(&[a], &[b]);
    draft.pipe(&[b], &[c]);
    let plan = draft.plan();
    let mut scheduler = Scheduler::new(&plan, 1, None, OnFailure::Continue, 1);
    let mut said = Vec::new();
    scheduler.handle(Event::Begin, &mut said);
    scheduler.handle(Event::Spawned(UnitId(a)), &mut said);
    let failure = Failure::CannotStart {
        code: 127,
        why: "no such file".to_owned(),
    };
    scheduler.handle(Event::SpawnFailed(UnitId(b), failure.clone()), &mut said);
    let skipped = Outcome::Skipped(writer(b, b));
    assert_eq!(
        said,
        [
            spawn(0),
            Action::Kill(UnitId(a)),
            ended(b, Outcome::Failed(failure)),
            ended(c, skipped)
        ]
    );
    let mut story = Story {
        scheduler,
        said: Vec::new(),
    };
    story.signal(a, 9).says(&[
        ended(a, Outcome::Cancelled(reader(b, b))),
        group_ended(0),
        finish(Verdict::Failed),
    ]);
}

/// `a` fails while `b` runs; `c` waits for `a`, `d` for `b`, `e` for `a`'s failure.
fn policies() -> Plan {
    let mut draft = Draft::default();
    let [a, b, c, d, e] = draft.nodes();
    draft.after(c, a, AfterState::Succeeded);
    draft.after(d, b, AfterState::Succeeded);
    draft.after(e, a, AfterState::Failed);
    draft.plan()
}

#[test]
fn stop_lets_what_runs_finish_and_cleans_up() {
    let plan = policies();
    let mut story = Story::begin(&plan, OnFailure::Stop);
    story.says(&[spawn(0), spawn(1)]);
    story.exit(0, 1).says(&[
        ended(0, failed(1)),
        group_ended(0),
        ended(2, after(0, 0)),
        Action::Stopping(Cause::RunFailed(NodeId(0))),
        ended(3, Outcome::Skipped(Cause::RunFailed(NodeId(0)))),
        spawn(4),
    ]);
    story.exit(4, 0).says(&[ended(4, well()), group_ended(4)]);
    story
        .exit(1, 0)
        .says(&[ended(1, well()), group_ended(1), finish(Verdict::Failed)]);
}

#[test]
fn kill_ends_what_runs_too() {
    let plan = policies();
    let mut story = Story::begin(&plan, OnFailure::Kill);
    story.says(&[spawn(0), spawn(1)]);
    let [stop_b, arm_b] = stop(1);
    story.exit(0, 1).says(&[
        ended(0, failed(1)),
        group_ended(0),
        ended(2, after(0, 0)),
        Action::Stopping(Cause::RunFailed(NodeId(0))),
        stop_b,
        arm_b,
        ended(3, Outcome::Skipped(Cause::RunFailed(NodeId(0)))),
        spawn(4),
    ]);
    story.signal(1, 15).says(&[
        calm(1),
        ended(1, Outcome::Cancelled(Cause::RunFailed(NodeId(0)))),
        group_ended(1),
    ]);
    story
        .exit(4, 0)
        .says(&[ended(4, well()), group_ended(4), finish(Verdict::Failed)]);
}

#[test]
fn continue_runs_all_that_does_not_depend_on_the_failure() {
    let plan = policies();
    let mut story = Story::begin(&plan, OnFailure::Continue);
    story.says(&[spawn(0), spawn(1)]);
    story.exit(0, 1).says(&[
        ended(0, failed(1)),
        group_ended(0),
        ended(2, after(0, 0)),
        spawn(4),
    ]);
    story
        .exit(1, 0)
        .says(&[ended(1, well()), group_ended(1), spawn(3)]);
    story.exit(3, 0).says(&[ended(3, well()), group_ended(3)]);
    story
        .exit(4, 0)
        .says(&[ended(4, well()), group_ended(4), finish(Verdict::Failed)]);
}

#[test]
fn a_failure_that_never_comes_is_none() {
    let mut draft = Draft::default();
    let [a, rescue, report] = draft.nodes();
    draft.after(rescue, a, AfterState::Failed);
    draft.after(report, rescue, AfterState::Succeeded);
    let plan = draft.plan();
    let never = || Outcome::Skipped(Cause::NeverFailed(NodeId(a)));
    Story::begin(&plan, OnFailure::Stop).exit(a, 0).says(&[
        spawn(0),
        ended(a, well()),
        group_ended(0),
        ended(rescue, never()),
        ended(report, never()),
        finish(Verdict::Succeeded),
    ]);
}

/// Of a matrix, `failed` is one of its combinations, when all of them have ended.
#[test]
fn a_matrix_has_failed_when_one_of_its_combinations_has() {
    let mut draft = Draft::default();
    let [a, b, c, rescue] = draft.nodes();
    for node in [a, b, c] {
        draft.after(rescue, node, AfterState::Failed);
    }
    let mut plan = draft.plan();
    for node in &mut plan.nodes[..3] {
        node.base = "t".into();
        node.matrix = vec![("x".into(), node.name.clone())];
    }
    for bad in [None, Some(a), Some(b), Some(c)] {
        let mut story = Story::begin(&plan, OnFailure::Continue);
        story.says(&[spawn(0), spawn(1), spawn(2)]);
        let code = |node| u8::from(bad == Some(node));
        let end = |node| if bad == Some(node) { failed(1) } else { well() };
        story
            .exit(a, code(a))
            .says(&[ended(a, end(a)), group_ended(0)]);
        story
            .exit(c, code(c))
            .says(&[ended(c, end(c)), group_ended(2)]);
        let mut said = vec![ended(b, end(b)), group_ended(1)];
        match bad {
            Some(_) => said.push(spawn(3)),
            None => {
                let never = Outcome::Skipped(Cause::NeverFailed(NodeId(b)));
                said.extend([ended(rescue, never), finish(Verdict::Succeeded)]);
            }
        }
        story.exit(b, code(b)).says(&said);
    }
}

#[test]
fn an_allowed_failure_fails_nobody() {
    let mut draft = Draft::default();
    let [a, b, c] = draft.nodes();
    draft.at(a).allow_failure = true;
    let q = draft.pipe(&[a], &[b]);
    draft.after(c, a, AfterState::Succeeded);
    let plan = draft.plan();
    let mut story = Story::begin(&plan, OnFailure::Kill);
    story
        .exit(a, 1)
        .says(&[spawn(0), release(q, a), ended(a, failed(1)), spawn(1)]);
    story.exit(b, 0).says(&[ended(b, well()), group_ended(0)]);
    story
        .exit(c, 0)
        .says(&[ended(c, well()), group_ended(1), finish(Verdict::Succeeded)]);
}

#[test]
fn a_node_left_out_counts_as_satisfied_and_its_queues_as_empty() {
    let mut draft = Draft::default();
    let [a, b, c] = draft.nodes();
    draft.at(a).skip = true;
    draft.pipe(&[a], &[b]);
    draft.after(c, a, AfterState::Succeeded);
    let plan = draft.plan();
    let mut story = Story::begin(&plan, OnFailure::Stop);
    story.says(&[
        ended(a, Outcome::Skipped(Cause::ByUser)),
        spawn(0),
        spawn(1),
    ]);
    story.exit(b, 0).exit(c, 0).says(&[
        ended(b, well()),
        group_ended(0),
        ended(c, well()),
        group_ended(1),
        finish(Verdict::Succeeded),
    ]);
}

#[test]
fn a_unit_that_is_too_slow_is_stopped_then_killed_and_has_failed() {
    let mut draft = Draft::default();
    let a = draft.node();
    draft.at(a).timeout = Some(Duration::from_secs(30));
    let plan = draft.plan();
    let mut story = Story::begin(&plan, OnFailure::Continue);
    story.says(&[
        spawn(0),
        Action::Arm(Timer::Timeout(UnitId(a)), Duration::from_secs(30)),
    ]);
    story
        .on(Event::Fired(Timer::Timeout(UnitId(a))))
        .says(&stop(a));
    story.on(Event::Fired(Timer::Timeout(UnitId(a)))).says(&[]);
    story
        .on(Event::Fired(Timer::Grace(UnitId(a))))
        .says(&[Action::Kill(UnitId(a))]);
    let failure = Failure::TimedOut(Duration::from_secs(30));
    story.signal(a, 9).says(&[
        ended(a, Outcome::Failed(failure)),
        group_ended(0),
        finish(Verdict::Failed),
    ]);
}

#[test]
fn the_runs_own_timeout() {
    let mut draft = Draft::default();
    let [a, b] = draft.nodes();
    draft.after(b, a, AfterState::Finished);
    draft.timeout = Some(Duration::from_secs(60));
    let plan = draft.plan();
    let mut story = Story::begin(&plan, OnFailure::Stop);
    story.says(&[Action::Arm(Timer::Run, Duration::from_secs(60)), spawn(0)]);
    let [stop_a, arm_a] = stop(a);
    let skipped = ended(b, Outcome::Skipped(Cause::RunTimeout));
    story.on(Event::Fired(Timer::Run)).says(&[
        Action::Stopping(Cause::RunTimeout),
        stop_a,
        arm_a,
        skipped,
    ]);
    story.signal(a, 15).says(&[
        calm(a),
        ended(a, Outcome::Cancelled(Cause::RunTimeout)),
        group_ended(0),
        finish(Verdict::TimedOut),
    ]);
}

#[test]
fn the_first_signal_stops_and_the_second_kills() {
    let mut draft = Draft::default();
    let [a, b, c] = draft.nodes();
    draft.after(c, a, AfterState::Finished);
    let plan = draft.plan();
    let mut story = Story::begin(&plan, OnFailure::Stop);
    story.says(&[spawn(0), spawn(1)]);
    let cause = || Cause::Interrupted(2);
    let ([stop_a, arm_a], [stop_b, arm_b]) = (stop(a), stop(b));
    let skipped = ended(c, Outcome::Skipped(cause()));
    story.on(Event::Shutdown(2)).says(&[
        Action::Stopping(cause()),
        stop_a,
        arm_a,
        stop_b,
        arm_b,
        skipped,
    ]);
    story.signal(a, 15).says(&[
        calm(a),
        ended(a, Outcome::Cancelled(cause())),
        group_ended(0),
    ]);
    story
        .on(Event::Shutdown(2))
        .says(&[calm(b), Action::Kill(UnitId(b))]);
    story.signal(b, 9).says(&[
        ended(b, Outcome::Cancelled(cause())),
        group_ended(1),
        finish(Verdict::Interrupted(2)),
    ]);
}

#[test]
fn a_signal_ends_the_wait_for_the_next_try() {
    let mut draft = Draft::default();
    let a = draft.node();
    draft.at(a).retry.max = 3;
    let plan = draft.plan();
    let mut story = Story::begin(&plan, OnFailure::Stop);
    story.exit(a, 1).said.clear();
    story.on(Event::Shutdown(15)).says(&[
        Action::Stopping(Cause::Interrupted(15)),
        Action::Disarm(Timer::Backoff(GroupId(0))),
        ended(a, failed(1)),
        finish(Verdict::Interrupted(15)),
    ]);
}

#[test]
fn one_larger_than_the_machine_runs_alone() {
    let mut draft = Draft::default();
    let [a, wide, c] = draft.nodes();
    draft.at(wide).slots = 100;
    let plan = draft.plan();
    let mut story = Story::begin(&plan, OnFailure::Stop);
    story.says(&[spawn(0), spawn(2)]);
    story.exit(a, 0).says(&[ended(a, well()), group_ended(0)]);
    story
        .exit(c, 0)
        .says(&[ended(c, well()), group_ended(2), spawn(1)]);
}

/// 100,000 nodes with three conditions each: what the scheduler costs a run, without a process. `cargo test --release --
/// --ignored --nocapture large` prints it.
#[test]
#[ignore = "measures"]
fn large_plan() {
    use std::io::Write;
    for count in [20_000_u32, 100_000] {
        let mut draft = Draft::default();
        for id in 0..count {
            draft.node();
            for other in [id / 2, id / 3, id.saturating_sub(7)] {
                if other < id && draft.at(id).after.iter().all(|after| after.node.0 != other) {
                    draft.after(id, other, AfterState::Succeeded);
                }
            }
        }
        let plan = draft.plan();
        let start = std::time::Instant::now();
        let mut scheduler = Scheduler::new(&plan, 8, None, OnFailure::Stop, 1);
        let made = start.elapsed();
        let mut said = Vec::new();
        scheduler.handle(Event::Begin, &mut said);
        let mut next = 0;
        while next < said.len() {
            if let Action::Spawn { group, .. } = said[next] {
                let unit = UnitId(group.0);
                scheduler.handle(Event::Spawned(unit), &mut said);
                let exit = Event::Exited {
                    unit,
                    exit: Exit::Code(0),
                    broken: vec![],
                    fault: None,
                };
                scheduler.handle(exit, &mut said);
            }
            next += 1;
        }
        assert_eq!(said.last(), Some(&finish(Verdict::Succeeded)));
        writeln!(
            std::io::stderr(),
            "{count} nodes: new {made:?}, all {:?}",
            start.elapsed()
        )
        .unwrap();
    }
}

/// Nobody can know how much of its share a worker had done: its failure is the pool's.
#[test]
fn a_worker_that_fails_takes_the_others_with_it() {
    let mut draft = Draft::default();
    let (writer, pool) = (draft.node(), draft.pool(3));
    let queue = draft.pipe(&[writer], &[pool]);
    let plan = draft.plan();
    let mut story = Story::begin(&plan, OnFailure::Stop);
    story
        .says(&[spawn(0)])
        .exit(0, 0)
        .says(&[release(queue, 0), ended(0, well())])
        .exit(1, 0)
        .says(&[ended(1, well())])
        .exit(2, 3)
        .says(&[
            ended(2, failed(3)),
            Action::Stop(UnitId(3)),
            Action::Arm(Timer::Grace(UnitId(3)), Duration::from_secs(5)),
            Action::Stopping(Cause::RunFailed(NodeId(1))),
        ])
        .signal(3, 15)
        .says(&[
            Action::Disarm(Timer::Grace(UnitId(3))),
            ended(3, Outcome::Cancelled(Cause::Pool(NodeId(1)))),
            group_ended(0),
            Action::Finish(Verdict::Failed),
        ]);
}

/// It waits for all of a pool.
#[test]
fn what_comes_after_a_pool_waits_for_every_worker() {
    let mut draft = Draft::default();
    let (after, writer, pool) = (draft.node(), draft.node(), draft.pool(2));
    draft.after(after, pool, AfterState::Succeeded);
    let queue = draft.pipe(&[writer], &[pool]);
    let plan = draft.plan();
    let mut story = Story::begin(&plan, OnFailure::Stop);
    story
        .says(&[spawn(1)])
        .exit(1, 0)
        .says(&[release(queue, 1), ended(1, well())])
        .exit(2, 0)
        .says(&[ended(2, well())])
        .exit(3, 0)
        .says(&[ended(3, well()), group_ended(1), spawn(0)]);
}

/// What is stored joins no groups: its readers' failure is not its writers' business, and the other way round there is the
/// wait between the two.
#[test]
fn a_stored_queue_joins_nobody() {
    let mut draft = Draft::default();
    let [writer, reader] = draft.nodes();
    let queue = draft.store(&[writer], &[reader]);
    let plan = draft.plan();
    let mut story = Story::begin(&plan, OnFailure::Continue);
    story
        .says(&[spawn(0)])
        .exit(0, 0)
        .says(&[
            release(queue, 0),
            ended(0, well()),
            group_ended(0),
            spawn(1),
        ])
        .exit(1, 1)
        .says(&[
            ended(1, failed(1)),
            group_ended(1),
            Action::Finish(Verdict::Failed),
        ]);
}

/// A pool whose queue leads back to it is upstream of itself. What it writes to somebody else's file must not wait for that.
#[test]
fn a_file_behind_a_cycle_appears() {
    let mut draft = Draft::default();
    let [seed, pool, keep] = draft.nodes();
    let todo = draft.pipe(&[seed], &[pool]);
    draft.add_writer(todo, pool);
    let found = draft.pipe(&[pool], &[keep]);
    draft.at(keep).outputs.push(vec![Draft::file()]);
    let mut plan = draft.plan();
    plan.queues[todo.index()].feedback = true;
    let mut story = Story::begin(&plan, OnFailure::Stop);
    story
        .says(&[spawn(0)])
        .exit(0, 0)
        .says(&[release(todo, 0), ended(0, well())])
        .exit(1, 0)
        .says(&[release(todo, 1), release(found, 1), ended(1, well())])
        .exit(2, 0)
        .says(&[Action::Commit(UnitId(2))])
        .committed(2)
        .says(&[
            ended(2, well()),
            group_ended(0),
            Action::Finish(Verdict::Succeeded),
        ]);
}

/// Together or not at all: each worker has a file, and none appears before all of them have done their work.
#[test]
fn the_files_of_a_pool_wait_for_every_worker() {
    let mut draft = Draft::default();
    let pool = draft.pool(2);
    draft.at(pool).outputs.push(vec![Draft::file()]);
    let plan = draft.plan();

    let mut story = Story::begin(&plan, OnFailure::Continue);
    story.exit(0, 0).says(&[spawn(0)]);
    story
        .exit(1, 0)
        .says(&[Action::Commit(UnitId(1)), Action::Commit(UnitId(0))]);
    story.committed(0).says(&[ended(0, well())]);
    story
        .committed(1)
        .says(&[ended(1, well()), group_ended(0), finish(Verdict::Succeeded)]);

    let mut story = Story::begin(&plan, OnFailure::Continue);
    story.exit(0, 0).says(&[spawn(0)]);
    story.exit(1, 3).says(&[
        Action::Discard(UnitId(1)),
        ended(1, failed(3)),
        Action::Discard(UnitId(0)),
        ended(0, Outcome::Cancelled(Cause::Pool(NodeId(pool)))),
        group_ended(0),
        finish(Verdict::Failed),
    ]);
}

/// The pool's own worker is not its "writer": for people both are the pool.
#[test]
fn what_gathers_hears_of_a_worker_as_of_its_pool() {
    let mut draft = Draft::default();
    let pool = draft.pool(2);
    draft.at(pool).gathers = true;
    let plan = draft.plan();
    let mut story = Story::begin(&plan, OnFailure::Continue);
    story
        .exit(0, 0)
        .says(&[spawn(0), release(QueueId(0), 0), ended(0, well())]);
    let [stop_gatherer, arm] = stop(2);
    story
        .exit(1, 3)
        .says(&[ended(1, failed(3)), stop_gatherer, arm]);
    story.signal(2, 15).says(&[
        calm(2),
        Action::Discard(UnitId(2)),
        ended(2, Outcome::Cancelled(Cause::Pool(NodeId(pool)))),
        group_ended(0),
        finish(Verdict::Failed),
    ]);
}

/// Its queues end as if it had succeeded, and so nobody is stopped; but it has failed, and so there is no file.
#[test]
fn a_pool_that_may_fail_goes_on_without_a_worker_and_leaves_no_file() {
    let mut draft = Draft::default();
    let (pool, reader) = (draft.pool(3), draft.node());
    draft.at(pool).allow_failure = true;
    let queue = draft.pipe(&[pool], &[reader]);
    draft.at(pool).outputs.push(vec![Draft::file()]);
    let plan = draft.plan();
    let mut story = Story::begin(&plan, OnFailure::Stop);
    story.says(&[spawn(0)]);
    story.exit(0, 3).says(&[
        Action::Discard(UnitId(0)),
        release(queue, 0),
        ended(0, failed(3)),
    ]);
    for worker in [1, 2] {
        story.exit(worker, 0).says(&[
            Action::Discard(UnitId(worker)),
            release(queue, worker),
            ended(worker, Outcome::Cancelled(Cause::Pool(NodeId(pool)))),
        ]);
    }
    story
        .exit(3, 0)
        .says(&[ended(3, well()), group_ended(0), finish(Verdict::Succeeded)]);
}

/// `retries = 1` is one more try for the pool, not one for each worker.
#[test]
fn the_tries_of_a_pool_are_counted_for_all_its_workers() {
    let mut draft = Draft::default();
    let pool = draft.pool(2);
    draft.at(pool).retry.max = 1;
    let plan = draft.plan();
    let mut story = Story::begin(&plan, OnFailure::Continue);
    story
        .exit(1, 0)
        .exit(0, 1)
        .on(Event::Fired(Timer::Backoff(GroupId(0))))
        .said
        .clear();
    story.exit(0, 0).says(&[]);
    story.exit(1, 1).says(&[
        ended(1, failed(1)),
        ended(0, well()),
        group_ended(0),
        finish(Verdict::Failed),
    ]);
}

#[test]
fn a_worker_that_cannot_be_started_is_why_the_others_are_not() {
    let mut draft = Draft::default();
    let pool = draft.pool(3);
    let plan = draft.plan();
    let mut scheduler = Scheduler::new(&plan, 8, None, OnFailure::Continue, 1);
    let mut said = Vec::new();
    scheduler.handle(Event::Begin, &mut said);
    scheduler.handle(Event::Spawned(UnitId(0)), &mut said);
    let failure = Failure::CannotStart {
        code: 127,
        why: "no such file".to_owned(),
    };
    scheduler.handle(Event::SpawnFailed(UnitId(1), failure.clone()), &mut said);
    let cause = || Cause::Pool(NodeId(pool));
    assert_eq!(
        said,
        [
            spawn(0),
            Action::Kill(UnitId(0)),
            ended(1, Outcome::Failed(failure)),
            ended(2, Outcome::Skipped(cause())),
        ]
    );
    let mut story = Story {
        scheduler,
        said: Vec::new(),
    };
    story.signal(0, 9).says(&[
        ended(0, Outcome::Cancelled(cause())),
        group_ended(0),
        finish(Verdict::Failed),
    ]);
}

#[test]
fn all_workers_are_skipped_for_what_their_pool_waited_for() {
    let mut draft = Draft::default();
    let (a, pool) = (draft.node(), draft.pool(2));
    draft.after(pool, a, AfterState::Succeeded);
    let plan = draft.plan();
    let mut story = Story::begin(&plan, OnFailure::Continue);
    story.exit(a, 1).says(&[
        spawn(0),
        ended(a, failed(1)),
        group_ended(0),
        ended(2, after(a, a)),
        ended(1, after(a, a)),
        finish(Verdict::Failed),
    ]);
}

/// As with `head`, however long the workers go on with what they have: none of them waits for this writer.
#[test]
fn a_pool_that_has_read_enough_is_no_failure_of_its_writer() {
    let mut draft = Draft::default();
    let (yes, pool) = (draft.node(), draft.pool(2));
    let queue = draft.pipe(&[yes], &[pool]);
    let plan = draft.plan();
    let mut story = Story::begin(&plan, OnFailure::Stop);
    story.sigpipe(yes, &[queue]).says(&[spawn(0)]);
    story.exit(1, 0).says(&[ended(1, well())]);
    story.exit(2, 0).says(&[
        ended(2, well()),
        release(queue, yes),
        ended(yes, early()),
        group_ended(0),
        finish(Verdict::Succeeded),
    ]);
}

/// A worker's file waits for the one that died of its queue, and that for a reader who may wait for the first one's end.
#[test]
fn a_worker_that_dies_of_its_queue_lingers_where_a_file_waits_for_it() {
    let mut draft = Draft::default();
    let (pool, reader) = (draft.pool(2), draft.node());
    let [q, r] = [0, 1].map(|worker| {
        let queue = draft.pipe(&[pool], &[reader]);
        draft.queues[queue.index()].worker = Some(worker);
        queue
    });
    draft.at(pool).outputs.push(vec![Draft::file()]);
    let plan = draft.plan();
    let mut story = Story::begin(&plan, OnFailure::Continue);
    story.exit(0, 0).says(&[spawn(0)]);
    // The reader has closed `r` and waits for the end of `q`.
    let arm = Action::Arm(Timer::Grace(UnitId(1)), Duration::from_secs(5));
    story.sigpipe(1, &[r]).says(&[arm]);
    // Or it has read all that it wanted.
    story.exit(2, 0).says(&[
        ended(2, well()),
        calm(1),
        Action::Commit(UnitId(1)),
        Action::Commit(UnitId(0)),
    ]);
    story.committed(0).says(&[release(q, 0), ended(0, well())]);
}

/// What is stored is for later, whoever reads the rest.
#[test]
fn a_copy_that_is_stored_keeps_its_writer_going() {
    let mut draft = Draft::default();
    let [a, b, later] = draft.nodes();
    let q = draft.pipe(&[a], &[b]);
    let stored = draft.store(&[a], &[later]);
    draft.at(a).outputs = vec![vec![Sink::Queue(q), Sink::Queue(stored)]];
    let plan = draft.plan();
    let mut story = Story::begin(&plan, OnFailure::Continue);
    story.exit(b, 1).says(&[spawn(0), ended(b, failed(1))]);
    story.exit(a, 0).says(&[
        release(q, a),
        release(stored, a),
        ended(a, well()),
        group_ended(0),
        spawn(1),
    ]);
}

/// Its own failure would be allowed, and what comes after it goes on; but what it stored is cut off by another's crash.
#[test]
fn a_stored_queue_is_not_read_when_its_writer_was_cancelled() {
    let mut draft = Draft::default();
    let [a, b, reader, other] = draft.nodes();
    draft.at(b).allow_failure = true;
    draft.pipe(&[a], &[b]);
    draft.store(&[b], &[reader]);
    draft.after(other, b, AfterState::Succeeded);
    let plan = draft.plan();
    let mut story = Story::begin(&plan, OnFailure::Continue);
    story.exit(a, 1).said.clear();
    story.signal(b, 15).says(&[
        calm(b),
        ended(b, Outcome::Cancelled(writer(a, a))),
        group_ended(0),
        ended(reader, after(b, a)),
        spawn(2),
    ]);
}

/// A service with a probe.
fn service(draft: &mut Draft) -> u32 {
    let node = draft.node();
    draft.at(node).service = Some(true);
    node
}

fn probe(unit: u32) -> Action {
    Action::Probe(UnitId(unit))
}

fn stop_probe(unit: u32) -> Action {
    Action::StopProbe(UnitId(unit))
}

fn is_ready(unit: u32) -> Action {
    Action::Ready(UnitId(unit))
}

fn service_ended(code: u8, ready: bool) -> Failure {
    let exit = Exit::Code(code);
    Failure::Ended { exit, ready }
}

#[test]
fn a_service_is_waited_for_and_stopped_after_those_who_need_it() {
    let mut draft = Draft::default();
    let (db, web, test) = (service(&mut draft), service(&mut draft), draft.node());
    draft.after(web, db, AfterState::Ready);
    draft.after(test, web, AfterState::Ready);
    let plan = draft.plan();
    let mut story = Story::begin(&plan, OnFailure::Stop);
    story.says(&[spawn(0), probe(db)]);
    story
        .on(Event::Ready(UnitId(db)))
        .says(&[is_ready(db), spawn(1), probe(web)]);
    story
        .on(Event::Ready(UnitId(web)))
        .says(&[is_ready(web), spawn(2)]);
    let [stop_web, grace_web] = stop(web);
    story
        .exit(test, 0)
        .says(&[ended(test, well()), group_ended(2), stop_web, grace_web]);
    let [stop_db, grace_db] = stop(db);
    story.signal(web, 15).says(&[
        calm(web),
        ended(web, well()),
        group_ended(1),
        stop_db,
        grace_db,
    ]);
    // However it ends then.
    story.exit(db, 3).says(&[
        calm(db),
        ended(db, well()),
        group_ended(0),
        finish(Verdict::Succeeded),
    ]);
}

#[test]
fn a_service_that_dies_takes_those_with_it_who_need_it() {
    let mut draft = Draft::default();
    let (db, runs, waits) = (service(&mut draft), draft.node(), draft.node());
    draft.after(runs, db, AfterState::Ready);
    draft.after(waits, db, AfterState::Ready);
    draft.after(waits, runs, AfterState::Succeeded);
    let plan = draft.plan();
    let mut story = Story::begin(&plan, OnFailure::Stop);
    story.on(Event::Ready(UnitId(db)));
    story.says(&[spawn(0), probe(db), is_ready(db), spawn(1)]);
    let [stop, grace] = stop(runs);
    let cause = Cause::After {
        node: NodeId(db),
        root: NodeId(db),
    };
    story.exit(db, 0).says(&[
        ended(db, Outcome::Failed(service_ended(0, true))),
        group_ended(0),
        stop,
        grace,
        ended(waits, Outcome::Skipped(cause.clone())),
        Action::Stopping(Cause::RunFailed(NodeId(db))),
    ]);
    story.signal(runs, 15).says(&[
        calm(runs),
        ended(runs, Outcome::Cancelled(cause)),
        group_ended(1),
        finish(Verdict::Failed),
    ]);
}

#[test]
fn a_service_that_is_restarted_is_waited_for_again() {
    let mut draft = Draft::default();
    let (db, runs, waits) = (service(&mut draft), draft.node(), draft.node());
    draft.at(db).retry.max = 1;
    draft.after(runs, db, AfterState::Ready);
    draft.after(waits, db, AfterState::Ready);
    draft.after(waits, runs, AfterState::Succeeded);
    let plan = draft.plan();
    let mut story = Story::begin(&plan, OnFailure::Stop);
    story.on(Event::Ready(UnitId(db)));
    story.says(&[spawn(0), probe(db), is_ready(db), spawn(1)]);
    let backoff = Timer::Backoff(GroupId(0));
    let delay = Duration::from_secs(1);
    story.exit(db, 1).says(&[
        group_ended(0),
        Action::Retrying {
            unit: UnitId(db),
            attempt: 1,
            failure: service_ended(1, true),
            delay,
        },
        Action::Arm(backoff, delay),
    ]);
    // What runs goes on. What could be started now waits on.
    story
        .exit(runs, 0)
        .says(&[ended(runs, well()), group_ended(1)]);
    let (group, attempt) = (GroupId(0), 2);
    story
        .on(Event::Fired(backoff))
        .says(&[Action::Spawn { group, attempt }, probe(db)]);
    story
        .on(Event::Ready(UnitId(db)))
        .says(&[is_ready(db), spawn(2)]);
}

#[test]
fn a_service_that_is_not_ready_in_time_is_stopped_and_has_failed() {
    let mut draft = Draft::default();
    let (db, test) = (service(&mut draft), draft.node());
    draft.after(test, db, AfterState::Ready);
    let plan = draft.plan();
    let mut story = Story::begin(&plan, OnFailure::Stop);
    story.says(&[spawn(0), probe(db)]);
    let why = "not ready after 1s".to_owned();
    story
        .on(Event::NotReady(UnitId(db), why.clone()))
        .says(&stop(db));
    story.exit(db, 0).says(&[
        calm(db),
        ended(db, Outcome::Failed(Failure::NotReady(why))),
        group_ended(0),
        ended(test, after(db, db)),
        Action::Stopping(Cause::RunFailed(NodeId(db))),
        finish(Verdict::Failed),
    ]);
}

/// It takes nobody's place, however many there are.
#[test]
fn a_service_is_not_what_a_large_node_waits_for() {
    let mut draft = Draft::default();
    let (db, test) = (service(&mut draft), draft.node());
    draft.at(test).slots = 9;
    draft.after(test, db, AfterState::Ready);
    let plan = draft.plan();
    let mut story = Story::begin(&plan, OnFailure::Stop);
    story.on(Event::Ready(UnitId(db)));
    story.says(&[spawn(0), probe(db), is_ready(db), spawn(1)]);
}

#[test]
fn a_signal_leaves_a_service_to_those_who_need_it() {
    let mut draft = Draft::default();
    let (db, shy, test) = (service(&mut draft), service(&mut draft), draft.node());
    let late = draft.node();
    draft.after(test, db, AfterState::Ready);
    draft.after(late, shy, AfterState::Ready);
    let plan = draft.plan();
    let mut story = Story::begin(&plan, OnFailure::Stop);
    story.on(Event::Ready(UnitId(db)));
    story.says(&[
        spawn(0),
        spawn(1),
        probe(db),
        probe(shy),
        is_ready(db),
        spawn(2),
    ]);
    let interrupted = || Cause::Interrupted(2);
    let [stop_test, grace_test] = stop(test);
    let [stop_shy, grace_shy] = stop(shy);
    story.on(Event::Shutdown(2)).says(&[
        Action::Stopping(interrupted()),
        stop_test,
        grace_test,
        ended(late, Outcome::Skipped(interrupted())),
        stop_probe(shy),
        stop_shy,
        grace_shy,
    ]);
    let [stop_db, grace_db] = stop(db);
    story.exit(test, 0).says(&[
        calm(test),
        ended(test, Outcome::Cancelled(interrupted())),
        group_ended(2),
        stop_db,
        grace_db,
    ]);
    story.exit(shy, 0).says(&[
        calm(shy),
        ended(shy, Outcome::Cancelled(interrupted())),
        group_ended(1),
    ]);
    // The second kills.
    story
        .on(Event::Shutdown(2))
        .says(&[calm(db), Action::Kill(UnitId(db))]);
    story.signal(db, 9).says(&[
        ended(db, Outcome::Cancelled(interrupted())),
        group_ended(0),
        finish(Verdict::Interrupted(2)),
    ]);
}
