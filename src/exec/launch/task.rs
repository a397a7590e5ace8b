//! What a process of a `task` pool is told of its task: as arguments and as variables.

use std::borrow::Cow;

use crate::pool::Task;

/// The longest value of a variable: execve(2) takes no string of more than 128 KiB (MAX_ARG_STRLEN), name and NUL included.
const MOST: usize = 128 * 1024 - 16;

/// A record as one string: its fields, with the separator between them.
pub(super) fn joined<'t>(fields: &'t [Vec<u8>], separator: &str) -> Cow<'t, [u8]> {
    match fields {
        [whole] => Cow::Borrowed(whole),
        fields => Cow::Owned(fields.join(separator.as_bytes())),
    }
}

/// `TASK`, `TASK_0` and so on, `TASK_INDEX`. What no variable can hold (a NUL, more than [`MOST`] bytes) is left out: a script
/// has the record as its standard input as well.
pub(super) fn tasks_of(task: &Task, separator: &str) -> Vec<(String, Vec<u8>)> {
    let records: Vec<_> = task.records.iter().map(|r| joined(r, separator)).collect();
    let mut variables = vec![("TASK".to_owned(), records.join(&b'\n'))];
    if let [fields] = &task.records[..] {
        let fields = fields.iter().enumerate();
        variables.extend(fields.map(|(i, field)| (format!("TASK_{i}"), field.clone())));
    }
    variables.retain(|(_, value)| value.len() <= MOST && !value.contains(&0));
    variables.push(("TASK_INDEX".to_owned(), task.index.to_string().into_bytes()));
    variables
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(pair: &(String, Vec<u8>)) -> String {
        format!("{}={}", pair.0, String::from_utf8_lossy(&pair.1))
    }

    #[test]
    fn a_task_has_variables() {
        let task = Task {
            index: 7,
            records: vec![vec![b"a".to_vec(), b"b c".to_vec()]],
        };
        let told: Vec<String> = tasks_of(&task, ",").iter().map(text).collect();
        assert_eq!(
            told,
            ["TASK=a,b c", "TASK_0=a", "TASK_1=b c", "TASK_INDEX=7"]
        );
    }

    #[test]
    fn a_batch_is_one_record_a_line() {
        let task = Task {
            index: 0,
            records: vec![vec![b"a".to_vec()], vec![b"b".to_vec()]],
        };
        let told: Vec<String> = tasks_of(&task, "\t").iter().map(text).collect();
        assert_eq!(told, ["TASK=a\nb", "TASK_INDEX=0"]);
    }

    #[test]
    fn what_no_variable_can_hold_is_left_out() {
        let task = |record: Vec<u8>| Task {
            index: 0,
            records: vec![vec![record]],
        };
        let told = |record| tasks_of(&task(record), "\t").len();
        assert_eq!(told(b"a\0b".to_vec()), 1);
        assert_eq!(told(vec![b'x'; MOST + 1]), 1);
        assert_eq!(told(vec![b'x'; MOST]), 3);
    }
}
