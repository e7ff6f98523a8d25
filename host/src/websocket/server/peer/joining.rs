//! How a peer follows the endpoints of its route: it joins those that come and leaves those that go.

use super::Peer;
use crate::connections::Dismissal;
use crate::message::Payload;
use crate::message::metadata::{self, Origin};
use crate::reason::Reason;
use crate::websocket::close_code;
use crate::websocket::connection::ConnectionEnd;
use crate::websocket::server::broadcast::Broadcast;
use crate::websocket::server::membership::{JoiningMember, Membership};
use crate::websocket::server::route::Roster;
use crate::websocket::server::route_member::{MemberRole, RouteMember};
use std::sync::Arc;
use std::task::{Context, Poll};

impl Peer {
    /// Follows the route's endpoints.
    pub(super) fn look_again(&mut self) {
        let generation = self.route.generation();
        if generation == self.generation {
            return;
        }
        self.generation = generation;
        let Roster { members, closing, expects_source, early } = self.route.roster(self.entry.peer);
        self.closing = closing;
        let was_early = std::mem::replace(&mut self.is_early, expects_source);
        let is_there = |id: u64| members.iter().any(|member| member.id == id);
        let mut has_stopped = false;
        for membership in &mut self.members {
            let leaves = !membership.is_leaving && !is_there(membership.id);
            membership.is_leaving |= leaves;
            if let Some(inlet) = membership.inlet.as_mut().filter(|_| leaves) {
                inlet.stop(self.chunk.rest(inlet, &self.connection));
                has_stopped = true;
            }
        }
        if has_stopped {
            self.chunk.forget_rest(&mut self.connection, &self.members);
        }
        self.arriving.retain(|arriving| is_there(arriving.member.id));
        if self.ending.is_some() {
            if was_early && !expects_source {
                self.join_afterwards(members);
            }
            self.leave_rest(&early);
            return;
        }
        for member in members {
            let is_known = self.members.iter().any(|known| known.id == member.id)
                || self.arriving.iter().any(|known| known.member.id == member.id);
            if is_known || self.is_unwritable && matches!(member.end, MemberRole::Sink(_)) {
                continue;
            }
            if member.on_connect.is_empty() {
                self.join(member, Vec::new());
            } else {
                self.arriving.push(JoiningMember::new(member));
            }
        }
        self.leave_rest(&early);
    }

    /// Leaves the broadcasts that were joined for it and that it does not take part in.
    fn leave_rest(&self, early: &[Arc<Broadcast>]) {
        for broadcast in early {
            let is_this = |joined: &Membership| {
                joined.broadcast.as_ref().is_some_and(|joined| Arc::ptr_eq(joined, broadcast))
            };
            if !self.members.iter().any(is_this) {
                broadcast.leave(self.entry.peer, Reason::PeerClosed);
            }
        }
    }

    /// Its connection has ended, and what it had sent is for the sources that have come since.
    fn join_afterwards(&mut self, members: Vec<RouteMember>) {
        let is_source = |member: &RouteMember| matches!(member.end, MemberRole::Source { .. });
        for member in members.into_iter().filter(is_source) {
            if self.members.iter().any(|known| known.id == member.id) {
                continue;
            }
            self.join(member, Vec::new());
            if let Some(membership) = self.members.last_mut() {
                membership.part(self.entry.peer, &self.shown, Reason::PeerClosed);
            }
        }
    }

    /// Joins the endpoints whose greetings are made.
    pub(super) fn poll_arrivals(&mut self, cx: &mut Context<'_>) -> Result<(), ConnectionEnd> {
        let mut index = 0;
        while let Some(arriving) = self.arriving.get_mut(index) {
            match arriving.poll(cx) {
                Poll::Ready(Ok(greetings)) => {
                    let member = self.arriving.remove(index).member;
                    self.join(member, greetings);
                }
                Poll::Ready(Err(error)) => {
                    self.route.cannot_greet(&arriving.member, &error);
                    let (code, reason) = (close_code::INTERNAL_ERROR, "no greeting".to_owned());
                    return Err(ConnectionEnd::Dismissed(Dismissal { code, reason }));
                }
                Poll::Pending => index += 1,
            }
        }
        Ok(())
    }

    fn join(&mut self, member: RouteMember, greetings: Vec<Payload>) {
        let origin = self.origin_at(&member);
        let origin_there = match &member.end {
            MemberRole::Source { is_answered: true, .. } => {
                self.replies.get_or_insert_default().origin(&origin)
            }
            _ => origin.clone(),
        };
        self.members.push(Membership::join(member, self.entry.peer, &self.shown, &origin, origin_there));
        self.members.shrink_to_fit();
        self.greetings.extend(greetings);
        self.chunk.follow(&self.members);
    }

    /// Leaves the endpoints that have left the route, once they have and have given all that they are to.
    pub(super) fn retire(&mut self, cx: &mut Context<'_>) {
        if !self.members.iter().any(|membership| membership.is_leaving) {
            return;
        }
        self.members.retain_mut(|membership| {
            if !membership.is_leaving || membership.poll_rest(cx).is_pending() || membership.is_owed(false) {
                return true;
            }
            membership.part(self.entry.peer, &self.shown, Reason::PeerClosed);
            false
        });
        self.chunk.follow(&self.members);
    }

    /// What this peer's messages have in common at an endpoint.
    fn origin_at(&self, member: &RouteMember) -> Arc<Origin> {
        let of_the_host = [
            (metadata::SOURCE, self.route.url(self.handshake.path())),
            (metadata::CONNECTION, self.name.clone()),
            (metadata::PEER, self.address.to_string()),
        ];
        member.origin(of_the_host, &self.handshake, &self.route.pattern)
    }
}
