//! Every way in which a true history is made false, by the rule that it breaks.

use super::Falsehood;

mod acceptance;
mod answers;
mod attempts;
mod endings;
mod leaks;
mod looks;
mod steps;
mod telling;
mod timelines;

/// All of them.
pub fn all() -> impl Iterator<Item = &'static Falsehood> {
    let groups: [&[Falsehood]; 9] = [
        &acceptance::ALL,
        &endings::ALL,
        &timelines::ALL,
        &telling::ALL,
        &answers::ALL,
        &looks::ALL,
        &steps::ALL,
        &attempts::ALL,
        &leaks::ALL,
    ];
    groups.into_iter().flatten()
}
