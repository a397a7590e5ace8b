//! `${{ NAME }}` in a string of the pipeline file.

/// A string of the file with what is known at plan time already put in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Template {
    /// Nothing left to put in.
    Literal(Box<str>),
    /// Text and names that only the run knows, in turn.
    Parts(Box<[Part]>),
}

/// A piece of a [`Template`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// As it stands.
    Text(Box<str>),
    /// `${{ in.X }}`: the path of that input, `/dev/fd/N`.
    In(Box<str>),
    /// `${{ out.X }}`: the path of that output, `/dev/fd/N`.
    Out(Box<str>),
    /// `${{ value.NODE }}`: what that node's standard output said.
    Value(crate::plan::NodeId),
    /// `${{ run.id }}`
    RunId,
}
