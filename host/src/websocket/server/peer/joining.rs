//! How a peer follows the endpoints of its path: it joins those that come and leaves those that go.

use super::Peer;
use crate::connections::Dismissal;
use crate::message::Payload;
use crate::metadata::{self, Origin};
use crate::reason::Reason;
use crate::websocket::close_code;
use crate::websocket::connection::Ending;
use crate::websocket::server::membership::{Arriving, Inlet, Membership};
use crate::websocket::server::route::{End, Member, Roster};
use std::sync::Arc;
use std::task::{Context, Poll};

impl Peer {
    /// Follows the path's endpoints.
    pub(super) fn look_again(&mut self) {
        let generation = self.path.generation();
        if generation == self.generation {
            return;
        }
        self.generation = generation;
        let Roster { members, closing, expects_source } = self.path.roster();
        self.closing = closing;
        let was_early = std::mem::replace(&mut self.is_early, expects_source);
        let is_there = |id: u64| members.iter().any(|member| member.id == id);
        for membership in &mut self.members {
            membership.is_leaving = !is_there(membership.id);
        }
        self.arriving.retain(|arriving| is_there(arriving.member.id));
        if self.ending.is_some() {
            if was_early && !expects_source {
                self.join_afterwards(members);
            }
            return;
        }
        for member in members {
            let is_known = self.members.iter().any(|known| known.id == member.id)
                || self.arriving.iter().any(|known| known.member.id == member.id);
            if is_known || self.is_unwritable && matches!(member.end, End::Sink(_)) {
                continue;
            }
            if member.on_connect.is_empty() {
                self.join(member, Vec::new());
            } else {
                self.arriving.push(Arriving::new(member));
            }
        }
    }

    /// Its connection has ended, and what it had sent is for the sources that have come since.
    fn join_afterwards(&mut self, members: Vec<Member>) {
        for member in members.into_iter().filter(|member| matches!(member.end, End::Source { .. })) {
            self.join(member, Vec::new());
            if let Some(membership) = self.members.last_mut() {
                membership.part(self.id, &self.shown, Reason::PeerClosed);
            }
        }
    }

    /// Joins the endpoints whose greetings are made.
    pub(super) fn poll_arrivals(&mut self, cx: &mut Context<'_>) -> Result<(), Ending> {
        let mut index = 0;
        while let Some(arriving) = self.arriving.get_mut(index) {
            match arriving.poll(cx) {
                Poll::Ready(Ok(greetings)) => {
                    let member = self.arriving.remove(index).member;
                    self.join(member, greetings);
                }
                Poll::Ready(Err(error)) => {
                    self.path.cannot_greet(&arriving.member, &error);
                    let (code, reason) = (close_code::INTERNAL_ERROR, "no greeting".to_owned());
                    return Err(Ending::Dismissed(Dismissal { code, reason }));
                }
                Poll::Pending => index += 1,
            }
        }
        Ok(())
    }

    fn join(&mut self, member: Member, greetings: Vec<Payload>) {
        let origin = self.origin_at(&member);
        let origin_there = match &member.end {
            End::Source { is_answered: true, .. } => self.lane.get_or_insert_default().origin(&origin),
            _ => origin.clone(),
        };
        self.members.push(Membership::join(member, self.id, &self.shown, &origin, origin_there));
        self.members.shrink_to_fit();
        self.greetings.extend(greetings);
        self.take_first_origin();
    }

    /// What is read has the origin that it has at the first source.
    fn take_first_origin(&mut self) {
        if let Some(first) = self.members.iter().find_map(|membership| membership.inlet.as_ref())
            && !Arc::ptr_eq(&first.origin, &self.origin)
        {
            self.chunk = self.chunk.from(&first.origin);
            self.origin = first.origin.clone();
        }
    }

    /// Leaves the endpoints that have left the path, once they have and have given all that they are to.
    pub(super) fn retire(&mut self) {
        if !self.members.iter().any(|membership| membership.is_leaving) {
            return;
        }
        // What was read beyond the chunk is for those that stay, if any do.
        let stays = |membership: &Membership| membership.inlet.is_some() && !membership.is_leaving;
        let is_for_others = self.members.iter().any(stays);
        let reads_more = !is_for_others && self.connection.held_messages() > 0;
        let has_chunk = !self.chunk.is_empty();
        self.members.retain_mut(|membership| {
            if !membership.is_leaving {
                return true;
            }
            let waits = |inlet: &Inlet| reads_more || has_chunk && !inlet.has_chunk();
            if membership.is_owed(false) || membership.inlet.as_ref().is_some_and(waits) {
                return true;
            }
            if let Some(inlet) = &mut membership.inlet {
                inlet.account(0);
            }
            membership.part(self.id, &self.shown, Reason::PeerClosed);
            false
        });
        self.take_first_origin();
    }

    /// What this peer's messages have in common at an endpoint.
    fn origin_at(&self, member: &Member) -> Arc<Origin> {
        let of_the_host = [
            (metadata::SOURCE, self.path.url(self.handshake.path())),
            (metadata::CONNECTION, self.name.clone()),
            (metadata::PEER, self.address.to_string()),
        ];
        member.origin(of_the_host, &self.handshake, &self.path.pattern)
    }
}
