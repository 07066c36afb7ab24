//! Many clients by hand and their gateway, step by step together. Owns which answer is whose. Must never go on when one
//! answer is missing or one more came than was asked for.

use std::ops::Range;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jvpn_common::gateway::command::{Datagram, Origin};
use jvpn_common::message::Purpose;
use jvpn_common::secret::PrivateKey;
use jvpn_ctl::runtime::entropy::System;

use super::{Client, Gateway};

/// Between two steps of everybody. A session that moves five times a second stays below every limit of the bench policy.
const STEP: Duration = Duration::from_millis(100);
/// Who resume together: each has a second slot until its CONFIRM, and a gateway here has a few to spare.
const TOGETHER: usize = 16;
/// Between two steps of theirs: nobody times out while a hundred thousand have their turn.
const STEP_OF_FEW: Duration = Duration::from_millis(1);

/// A gateway and its clients.
#[derive(Debug)]
pub struct Crowd {
    pub gateway: Gateway,
    clients: Vec<Client>,
}

impl Crowd {
    /// So many clients without a session.
    #[must_use]
    pub fn new(count: u32, load_threshold: u32) -> Crowd {
        let key = PrivateKey::generate(&mut System);
        let peers: Vec<_> = (0..count).map(|_| PrivateKey::generate(&mut System)).collect();
        let gateway = Gateway::new(&key, &peers, load_threshold);
        let clients = (0..).zip(&peers).map(|(number, peer)| Client::new(number, peer, key.public())).collect();
        Crowd { gateway, clients }
    }

    /// Some say something, after a while, and each gets one answer, in the same order.
    fn ask(
        &mut self,
        who: Range<usize>,
        after: Duration,
        say: impl Fn(&mut Client) -> Result<(Origin, Vec<u8>)>,
    ) -> Result<Vec<Datagram>> {
        let questions = self.clients[who].iter_mut().map(say).collect::<Result<Vec<_>>>()?;
        let from: Vec<Origin> = questions.iter().map(|(origin, _)| *origin).collect();
        self.gateway.pass(after);
        let answers = self.gateway.take(questions);
        ensure!(answers.len() == from.len(), "{} answers to {} questions", answers.len(), from.len());
        let astray = answers.iter().zip(&from).find(|(answer, origin)| answer.origin != **origin);
        ensure!(astray.is_none(), "an answer went elsewhere: {astray:?}");
        Ok(answers)
    }

    fn tell(
        &mut self,
        who: Range<usize>,
        answers: &[Datagram],
        take: impl Fn(&mut Client, &Datagram) -> Result<()>,
    ) -> Result<()> {
        for (number, (client, answer)) in who.clone().zip(self.clients[who].iter_mut().zip(answers)) {
            take(client, answer).with_context(|| format!("client {number}"))?;
        }
        Ok(())
    }

    /// A whole handshake of everybody, with the round for a cookie or without, until its session is bound.
    ///
    /// # Errors
    /// When one answer of one client is another one than it has to be, here and below.
    pub fn attach(&mut self, with_cookie: bool) -> Result<()> {
        self.attach_some(0..self.clients.len(), STEP, with_cookie)?;
        self.all_have_one()
    }

    /// The same of sessions there are, a few at a time.
    pub fn resume(&mut self, with_cookie: bool) -> Result<()> {
        for first in (0..self.clients.len()).step_by(TOGETHER) {
            self.attach_some(first..self.clients.len().min(first + TOGETHER), STEP_OF_FEW, with_cookie)?;
        }
        self.all_have_one()
    }

    fn attach_some(&mut self, who: Range<usize>, after: Duration, with_cookie: bool) -> Result<()> {
        if with_cookie {
            let replies = self.ask(who.clone(), after, Client::message1)?;
            self.tell(who.clone(), &replies, Client::take_cookie)?;
        }
        let answers = self.ask(who.clone(), after, Client::message1)?;
        self.tell(who.clone(), &answers, Client::take_message2)?;
        let answers = self.ask(who.clone(), after, Client::confirm)?;
        self.tell(who, &answers, Client::take_done)
    }

    fn all_have_one(&self) -> Result<()> {
        let (sessions, clients) = (self.gateway.sessions(), self.clients.len());
        ensure!(sessions == clients, "{sessions} sessions of {clients} clients");
        Ok(())
    }

    /// Everybody ends its session.
    pub fn close(&mut self) -> Result<()> {
        let all = 0..self.clients.len();
        let answers = self.ask(all.clone(), STEP, Client::close)?;
        self.tell(all, &answers, Client::take_done)?;
        ensure!(self.gateway.sessions() == 0, "{} sessions of nobody", self.gateway.sessions());
        Ok(())
    }

    /// Everybody moves to its other address, challenged and acknowledged.
    pub fn reattach(&mut self, purpose: Purpose) -> Result<()> {
        let (commits, records) = (self.gateway.commits, self.gateway.records);
        let all = 0..self.clients.len();
        let challenges = self.ask(all.clone(), STEP, |client| client.reattach(purpose))?;
        ensure!(self.gateway.commits == commits, "a request that was not proven was committed");
        let mut challenges = challenges.into_iter();
        let mut proofs = Vec::with_capacity(self.clients.len());
        for (number, client) in self.clients.iter_mut().enumerate() {
            let challenge = challenges.next().context("a challenge")?;
            proofs.push(client.prove(&challenge).with_context(|| format!("client {number}"))?);
        }
        let expected = proofs.len();
        self.gateway.pass(STEP);
        let acks = self.gateway.take(proofs);
        ensure!(acks.len() == expected, "{} acknowledgements of {expected}", acks.len());
        self.tell(all, &acks, Client::take_ack)?;
        let moves = self.clients.len() as u64;
        ensure!(self.gateway.commits >= commits + moves, "acknowledged without a commit");
        ensure!(self.gateway.records >= records + moves, "acknowledged without a record");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_attaches_with_and_without_cookies_and_moves_back_and_forth() {
        for (threshold, with_cookie) in [(u32::MAX, false), (0, true)] {
            let mut crowd = Crowd::new(3, threshold);
            crowd.attach(with_cookie).unwrap();
            assert_eq!(crowd.gateway.sessions(), 3);
            assert!(crowd.gateway.spent() > Duration::ZERO);
            for purpose in [Purpose::Lost, Purpose::BetterQuality, Purpose::Lost] {
                crowd.reattach(purpose).unwrap();
            }
            // The same sessions under new keys, all at once and some after the other, then new ones.
            crowd.attach(with_cookie).unwrap();
            crowd.resume(with_cookie).unwrap();
            crowd.reattach(Purpose::BetterQuality).unwrap();
            crowd.close().unwrap();
            crowd.attach(with_cookie).unwrap();
        }
    }

    #[test]
    fn a_missing_answer_is_an_error_and_no_figure() {
        let mut crowd = Crowd::new(2, 0);
        let error = crowd.attach(false).unwrap_err();
        assert!(format!("{error:#}").contains("not a message 2"), "{error:#}");
        let mut crowd = Crowd::new(2, u32::MAX);
        let error = crowd.reattach(Purpose::Lost).unwrap_err();
        assert!(format!("{error:#}").contains("no locator"), "{error:#}");
    }
}
