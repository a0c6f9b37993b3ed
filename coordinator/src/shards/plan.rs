//! How shards are spread over the coordinators: a pure function of how the cluster is, so that all who look at the same
//! cluster come to the same plan, and each carries out its own part of it.
//!
//! It promises: of the living coordinators none has two shards more than another once all parts are carried out; a shard
//! that has a living owner moves only where that is needed for it; a coordinator whose lease has ended gets nothing, and
//! nothing is taken from it before it is buried; one that can't read what was written gets nothing; and what is written is
//! raised to a format that all who take part can read.

use std::collections::BTreeMap;

use shared::id::{CoordinatorId, Shard};

use crate::store::{Cluster, Member};

/// What one coordinator is to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Coordinators whose lease has ended.
    pub bury: Vec<CoordinatorId>,
    /// Shards that nobody owns, to be taken.
    pub take: Vec<Shard>,
    /// Own shards that another is to have.
    pub give: BTreeMap<CoordinatorId, Vec<Shard>>,
    /// The format in which may be written from now on, where that is a higher one.
    pub raise: Option<u32>,
}

/// The part of the coordinator `id`.
pub fn plan(cluster: &Cluster, id: CoordinatorId) -> Plan {
    let ended = |(member, ended): &(_, bool)| ended.then_some(member_id(member));
    let bury: Vec<_> = cluster.members.iter().filter_map(ended).filter(|other| *other != id).collect();
    let mut loads = Loads::of(cluster, &bury);
    let lowest = cluster.members.iter().map(|(member, _)| member.format).min();
    let raise = lowest.filter(|format| *format > cluster.written);
    let mut plan = Plan { bury, raise, ..Plan::default() };
    for (shard, owner, _) in &cluster.shards {
        let has_row = owner.is_some_and(|owner| cluster.members.iter().any(|(member, _)| member.id == owner));
        if !has_row && loads.deal(*shard) == Some(id) {
            plan.take.push(*shard);
        }
    }
    while let Some((from, to, shard)) = loads.level() {
        // What isn't taken yet can't be given: it is dealt anew at the next look.
        if from == id && !plan.take.contains(&shard) {
            plan.give.entry(to).or_default().push(shard);
        }
    }
    plan
}

fn member_id(member: &Member) -> CoordinatorId {
    member.id
}

/// What each living coordinator has.
struct Loads(BTreeMap<CoordinatorId, Vec<Shard>>);

impl Loads {
    fn of(cluster: &Cluster, buried: &[CoordinatorId]) -> Self {
        let reads = |(member, _): &&(Member, bool)| member.format >= cluster.written;
        let living = cluster.members.iter().filter(reads).map(|(member, _)| member.id);
        let living = living.filter(|id| !buried.contains(id));
        let mut loads: BTreeMap<_, Vec<Shard>> = living.map(|id| (id, Vec::new())).collect();
        for (shard, owner, _) in &cluster.shards {
            if let Some(load) = owner.and_then(|owner| loads.get_mut(&owner)) {
                load.push(*shard);
            }
        }
        Self(loads)
    }

    /// Gives a shard to whoever has the least.
    fn deal(&mut self, shard: Shard) -> Option<CoordinatorId> {
        let (id, load) = self.0.iter_mut().min_by_key(|(_, load)| load.len())?;
        load.push(shard);
        Some(*id)
    }

    /// Moves one shard from who has the most to who has the least, where they differ by two or more.
    fn level(&mut self) -> Option<(CoordinatorId, CoordinatorId, Shard)> {
        let (most, from) = self.0.iter().map(|(id, load)| (load.len(), *id)).max_by_key(|(count, _)| *count)?;
        let (least, to) = self.0.iter().map(|(id, load)| (load.len(), *id)).min_by_key(|(count, _)| *count)?;
        if most < least + 2 {
            return None;
        }
        let shard = self.0.get_mut(&from)?.pop()?;
        self.0.get_mut(&to)?.push(shard);
        Some((from, to, shard))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use shared::clock;
    use shared::id::Epoch;
    use shared::time::Time;

    use super::*;

    fn coordinators(count: usize) -> Vec<CoordinatorId> {
        let mut ids: Vec<_> = (0..count).map(|_| CoordinatorId(clock::random_uuid())).collect();
        ids.sort();
        ids
    }

    fn member(id: CoordinatorId) -> Member {
        Member { id, address: String::new(), format: 1 }
    }

    fn cluster(
        living: &[CoordinatorId],
        ended: &[CoordinatorId],
        owner: impl Fn(Shard) -> Option<CoordinatorId>,
    ) -> Cluster {
        let members = living.iter().map(|id| (member(*id), false)).chain(ended.iter().map(|id| (member(*id), true)));
        let shards = Shard::all().map(|shard| (shard, owner(shard), Epoch(1))).collect();
        Cluster { now: Time::from_micros(0), members: members.collect(), shards, ttl: None, written: 1 }
    }

    /// Carries out everybody's part.
    fn carry_out(cluster: &Cluster) -> Cluster {
        let mut after = cluster.clone();
        let living: Vec<_> = cluster.members.iter().filter(|(_, ended)| !ended).map(|(member, _)| member.id).collect();
        for id in living {
            let plan = plan(cluster, id);
            after.members.retain(|(member, _)| !plan.bury.contains(&member.id));
            for shard in plan.take {
                set(&mut after, shard, id, |owner| {
                    owner.is_none_or(|o| cluster.members.iter().all(|(m, _)| m.id != o))
                });
            }
            for (to, shards) in plan.give {
                for shard in shards {
                    set(&mut after, shard, to, |owner| owner == Some(id));
                }
            }
        }
        after
    }

    fn set(cluster: &mut Cluster, shard: Shard, to: CoordinatorId, may: impl Fn(Option<CoordinatorId>) -> bool) {
        let place = cluster.shards.iter_mut().find(|(known, ..)| *known == shard).unwrap();
        assert!(may(place.1), "{shard} is taken from an owner by somebody else");
        place.1 = Some(to);
    }

    fn counts(cluster: &Cluster) -> Vec<usize> {
        let mut counts: HashMap<_, usize> = cluster.members.iter().map(|(member, _)| (member.id, 0)).collect();
        for (_, owner, _) in &cluster.shards {
            *counts.get_mut(&owner.expect("every shard has an owner")).expect("every owner has a row") += 1;
        }
        let mut counts: Vec<_> = counts.into_values().collect();
        counts.sort_unstable();
        counts
    }

    #[test]
    fn shards_that_nobody_owns_are_spread_evenly_and_none_is_taken_twice() {
        let ids = coordinators(3);
        assert_eq!(counts(&carry_out(&cluster(&ids, &[], |_| None))), [85, 85, 86]);
    }

    #[test]
    fn a_newcomer_gets_its_share_from_the_others_and_nothing_else_moves() {
        let ids = coordinators(3);
        let before = cluster(&ids, &[], |shard| ids.get(usize::from(shard.number() % 2)).copied());
        let after = carry_out(&before);
        assert_eq!(counts(&after), [85, 85, 86]);
        let moved = before.shards.iter().zip(&after.shards).filter(|(b, a)| b.1 != a.1);
        assert!(moved.clone().all(|(_, (_, owner, _))| *owner == Some(ids[2])));
        assert!((85..=86).contains(&moved.count()));
    }

    #[test]
    fn an_even_spread_stays_as_it_is() {
        let ids = coordinators(3);
        let even = cluster(&ids, &[], |shard| ids.get(usize::from(shard.number() % 3)).copied());
        for id in ids {
            assert_eq!(plan(&even, id), Plan::default());
        }
    }

    #[test]
    fn the_shards_of_one_whose_lease_has_ended_are_dealt_after_its_burial() {
        let ids = coordinators(3);
        let (dead, living) = ids.split_first().unwrap();
        let before = cluster(living, &[*dead], |shard| ids.get(usize::from(shard.number() % 3)).copied());
        let part = plan(&before, living[0]);
        assert_eq!((part.bury, part.take.len(), part.give.len()), (vec![*dead], 0, 0));
        let buried = carry_out(&before);
        assert_eq!(counts(&carry_out(&buried)), [128, 128]);
    }

    #[test]
    fn one_that_cannot_read_what_was_written_gets_nothing() {
        let ids = coordinators(3);
        let mut cluster = cluster(&ids, &[], |_| None);
        cluster.written = 2;
        for (member, _) in &mut cluster.members {
            member.format = if member.id == ids[1] { 1 } else { 2 };
        }
        let after = carry_out(&cluster);
        assert_eq!(counts(&after), [0, 128, 128]);
        assert!(after.shards.iter().all(|(_, owner, _)| *owner != Some(ids[1])));
    }

    #[test]
    fn what_is_written_is_raised_once_everybody_reads_it() {
        let ids = coordinators(3);
        let mut cluster = cluster(&ids[..2], &ids[2..], |_| Some(ids[0]));
        let raises = |formats: [u32; 3], cluster: &mut Cluster| {
            for ((member, _), format) in cluster.members.iter_mut().zip(formats) {
                member.format = format;
            }
            plan(cluster, ids[0]).raise
        };
        assert_eq!(raises([2, 1, 3], &mut cluster), None);
        assert_eq!(raises([2, 2, 1], &mut cluster), None, "one whose lease has ended writes until it is buried");
        assert_eq!(raises([3, 2, 3], &mut cluster), Some(2));
        cluster.written = 2;
        assert_eq!(raises([3, 2, 3], &mut cluster), None);
    }

    #[test]
    fn one_whose_own_lease_seems_to_have_ended_does_not_bury_itself() {
        let ids = coordinators(1);
        assert_eq!(plan(&cluster(&[], &ids, |_| Some(ids[0])), ids[0]), Plan::default());
    }
}
