//! What is taken already, and where: names, keys and inner prefixes must be unique over all files.
//!
//! Owns these comparisons. Must never say of a clash only one of its two places.

use super::load::Reader;
use super::report::{Problem, Source};
use ipnet::IpNet;
use std::collections::BTreeMap;
use toml::Spanned;

/// What is taken.
pub(super) struct Claims {
    words: BTreeMap<(&'static str, String), (Source, std::ops::Range<usize>)>,
    prefixes: Vec<(IpNet, Source, std::ops::Range<usize>)>,
    own: Vec<IpNet>,
    own_place: (Source, std::ops::Range<usize>),
}

impl Claims {
    /// The gateway's own addresses, and where they stand.
    pub(super) fn of_gateway(reader: &Reader<'_>, at: &Spanned<Vec<Spanned<String>>>, addresses: &[IpNet]) -> Self {
        let place = (reader.source.clone(), at.span());
        let host = |net: &IpNet| IpNet::from(net.addr());
        let prefixes = addresses.iter().map(|net| (host(net), place.0.clone(), place.1.clone())).collect();
        Self { words: BTreeMap::new(), prefixes, own: addresses.to_vec(), own_place: place }
    }

    /// A word of which there may be one.
    pub(super) fn once(&mut self, reader: &mut Reader<'_>, kind: &'static str, word: String, at: &Spanned<String>) {
        let title = format!("the {kind} `{word}` is used twice");
        if let Some((source, span)) = self.words.get(&(kind, word.clone())) {
            let problem = Problem::at(title, reader.source.mark(at.span(), "again here"))
                .and(source.mark(span.clone(), "first here"));
            reader.report.push(problem);
        } else {
            self.words.insert((kind, word), (reader.source.clone(), at.span()));
        }
    }

    /// An address that must lie in the gateway's prefixes.
    pub(super) fn inside(&self, reader: &mut Reader<'_>, address: &Spanned<IpNet>) {
        let net = address.as_ref();
        if !self.own.is_empty() && !self.own.iter().any(|own| own.contains(net)) {
            let title = format!("{net} lies outside the gateway's `addresses`");
            let mark = self.own_place.0.mark(self.own_place.1.clone(), "the prefixes peers live in");
            reader.report.push(Problem::at(title, reader.source.mark(address.span(), "not inside")).and(mark));
        }
    }

    /// A prefix that nobody else may have.
    pub(super) fn prefix(&mut self, reader: &mut Reader<'_>, net: &Spanned<IpNet>) {
        let new = net.as_ref().trunc();
        let clash = self.prefixes.iter().find(|(taken, ..)| taken.contains(&new) || new.contains(taken));
        if let Some((taken, source, span)) = clash {
            let title = format!("{new} overlaps {taken}");
            let problem = Problem::at(title, reader.source.mark(net.span(), "this one"))
                .and(source.mark(span.clone(), "is taken here"));
            reader.report.push(problem);
        }
        self.prefixes.push((new, reader.source.clone(), net.span()));
    }
}
