//! The newest dead letters of a host, of all its pipelines together.
//!
//! There is one lock, which a pipeline takes once for a batch of failures, to put in what it has made ready before.
//! What waits to be retried is not pushed out by newer letters, unless there is nothing else.

use super::letter::Letter;
use crate::message::metadata::now_us;
use crate::reason::Reason;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Most letters that are kept.
const MOST_LETTERS: usize = 1000;
/// What they may take together.
const MOST_BYTES: usize = 16 << 20;
/// Digits and small letters.
const RADIX: u64 = 36;
/// So long is what tells the letters of one life of the host from those of another: of seconds, two years.
const RUN_DIGITS: u32 = 5;

/// The letters that a host keeps. Cheap to clone: clones are one and the same.
#[derive(Clone, Debug)]
pub struct KeptLetters {
    shelf: Arc<Mutex<Shelf>>,
    /// What the names of the letters begin with: after a restart, an old name is no letter's.
    run: Arc<str>,
}

#[derive(Debug, Default)]
struct Shelf {
    /// The number of the newest.
    newest: u64,
    /// By number, ascending.
    resting: VecDeque<KeptLetter>,
    /// Those that wait to be retried, by number.
    waiting: BTreeMap<u64, KeptLetter>,
    bytes: usize,
}

#[derive(Clone, Debug)]
struct KeptLetter {
    number: u64,
    bytes: usize,
    letter: Arc<Letter>,
}

/// Which letters are meant: all, where nothing is said.
#[derive(Clone, Debug, Default)]
pub struct LetterFilter {
    /// Those of this pipeline.
    pub pipeline: Option<String>,
    /// Those with this reason.
    pub reason: Option<Reason>,
}

/// A letter that is kept.
#[derive(Clone, Debug)]
pub struct ShownLetter {
    /// Its number, which grows from letter to letter.
    pub number: u64,
    /// The letter itself.
    pub letter: Arc<Letter>,
    /// It is to be retried, and has not entered yet.
    pub is_waiting: bool,
}

impl LetterFilter {
    /// Whether a letter is one of those.
    pub fn has(&self, letter: &Letter) -> bool {
        self.pipeline.as_deref().is_none_or(|pipeline| pipeline == &*letter.pipeline)
            && self.reason.is_none_or(|reason| reason == letter.reason)
    }
}

impl Default for KeptLetters {
    fn default() -> Self {
        let mut seconds = now_us() / 1_000_000 % RADIX.pow(RUN_DIGITS);
        let mut run = Vec::new();
        for _ in 0..RUN_DIGITS {
            run.push(char::from_digit((seconds % RADIX) as u32, RADIX as u32).unwrap_or('0'));
            seconds /= RADIX;
        }
        Self { shelf: Arc::default(), run: run.into_iter().rev().collect::<String>().into() }
    }
}

impl KeptLetters {
    /// Keeps these letters, the newest last; what is too much then goes, the oldest first.
    pub fn keep(&self, letters: Vec<Letter>) {
        let ready = letters.into_iter().map(|letter| {
            let letter = letter.kept(MOST_BYTES);
            KeptLetter { number: 0, bytes: letter.bytes(), letter: Arc::new(letter) }
        });
        let ready: Vec<_> = ready.collect();
        if ready.is_empty() {
            return;
        }
        let mut pushed_out = Vec::new();
        let mut shelf = self.lock();
        for mut kept in ready {
            shelf.newest += 1;
            kept.number = shelf.newest;
            shelf.bytes += kept.bytes;
            shelf.resting.push_back(kept);
        }
        shelf.make_room(&mut pushed_out);
        // Memory is given back when the next pipeline has its turn.
        drop(shelf);
        drop(pushed_out);
    }

    /// The letters that are meant, the newest first, from the one before this number on; and how many there are in
    /// all, whatever their number.
    pub fn newest(
        &self,
        filter: &LetterFilter,
        before: Option<u64>,
        most: usize,
    ) -> (Vec<ShownLetter>, usize) {
        let all = self.all();
        let meant = all.iter().filter(|shown| filter.has(&shown.letter));
        let count = meant.clone().count();
        let page = meant.rev().filter(|shown| before.is_none_or(|before| shown.number < before));
        (page.take(most).cloned().collect(), count)
    }

    /// The letter of this number, if it is still kept.
    pub fn get(&self, number: u64) -> Option<ShownLetter> {
        let shelf = self.lock();
        let resting = shelf.find(number).map(|index| shelf.resting[index].shown(false));
        resting.or_else(|| shelf.waiting.get(&number).map(|kept| kept.shown(true)))
    }

    /// The name of a letter.
    pub fn name(&self, number: u64) -> String {
        format!("{}-{number}", self.run)
    }

    /// The number of the letter of this name; `None` where no letter of this host ever had it.
    pub fn number(&self, name: &str) -> Option<u64> {
        let number = name.strip_prefix(&*self.run)?.strip_prefix('-')?;
        let is_number = !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit());
        if is_number { number.parse().ok() } else { None }
    }

    /// A letter is to be retried: it waits from now on.
    ///
    /// # Errors
    /// It waits already, or is not there.
    pub(super) fn set_aside(&self, number: u64) -> Result<(), String> {
        let mut shelf = self.lock();
        if shelf.waiting.contains_key(&number) {
            return Err("it waits to be retried already".to_owned());
        }
        let found = shelf.find(number).and_then(|index| shelf.resting.remove(index));
        let kept = found.ok_or("it is not kept any more")?;
        shelf.waiting.insert(number, kept);
        Ok(())
    }

    /// Takes a letter out that waits to be retried, if there is a place for it.
    ///
    /// # Errors
    /// There is none, and it waits no longer; or it is not there.
    pub(super) fn take_out<T>(
        &self,
        number: u64,
        place: impl FnOnce(&Letter) -> Result<T, String>,
    ) -> Result<(Letter, T), String> {
        let mut shelf = self.lock();
        let kept = shelf.waiting.remove(&number).ok_or("newer dead letters have pushed it out")?;
        match place(&kept.letter) {
            Ok(place) => {
                shelf.bytes -= kept.bytes;
                drop(shelf);
                Ok((Arc::unwrap_or_clone(kept.letter), place))
            }
            Err(why) => {
                shelf.put_to_rest(kept);
                Err(why)
            }
        }
    }

    /// A letter that waits to be retried does not any more, if it is still there.
    pub(super) fn put_back(&self, number: u64) {
        let mut shelf = self.lock();
        if let Some(kept) = shelf.waiting.remove(&number) {
            shelf.put_to_rest(kept);
        }
    }

    /// All letters by number, ascending.
    fn all(&self) -> Vec<ShownLetter> {
        let shelf = self.lock();
        let resting = shelf.resting.iter().map(|kept| kept.shown(false));
        let mut all: Vec<_> = resting.chain(shelf.waiting.values().map(|kept| kept.shown(true))).collect();
        drop(shelf);
        all.sort_unstable_by_key(|shown| shown.number);
        all
    }

    fn lock(&self) -> MutexGuard<'_, Shelf> {
        // Each change is complete in itself, so a panic elsewhere leaves it sound.
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelf {
    fn find(&self, number: u64) -> Option<usize> {
        self.resting.binary_search_by_key(&number, |kept| kept.number).ok()
    }

    fn put_to_rest(&mut self, kept: KeptLetter) {
        let place = self.resting.partition_point(|other| other.number < kept.number);
        self.resting.insert(place, kept);
    }

    fn make_room(&mut self, pushed_out: &mut Vec<KeptLetter>) {
        let is_too_much = |shelf: &Self| {
            shelf.resting.len() + shelf.waiting.len() > MOST_LETTERS || shelf.bytes > MOST_BYTES
        };
        while is_too_much(self) {
            // The newest one is kept in any case.
            let oldest = if self.resting.len() > 1 {
                self.resting.pop_front()
            } else {
                self.waiting.pop_first().map(|(_, kept)| kept)
            };
            let Some(oldest) = oldest else { return };
            self.bytes -= oldest.bytes;
            pushed_out.push(oldest);
        }
    }
}

impl KeptLetter {
    fn shown(&self, is_waiting: bool) -> ShownLetter {
        ShownLetter { number: self.number, letter: self.letter.clone(), is_waiting }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::metadata::Metadata;
    use crate::message::{Failed, Message, Payload};

    fn letters(pipeline: &str, reason: Reason, lengths: impl IntoIterator<Item = usize>) -> Vec<Letter> {
        let letter = |length: usize| {
            let message =
                Message { payload: Payload::text("x".repeat(length)), metadata: Metadata::without_origin(0) };
            let failed = Failed { message, reason, detail: "why".to_owned() };
            Letter::new(pipeline.into(), "s".into(), None, failed, 0)
        };
        lengths.into_iter().map(letter).collect()
    }

    fn numbers(kept: &KeptLetters) -> Vec<u64> {
        let (all, count) = kept.newest(&LetterFilter::default(), None, usize::MAX);
        assert_eq!(all.len(), count);
        all.iter().map(|shown| shown.number).collect()
    }

    #[test]
    fn the_newest_are_kept_as_far_as_their_number_and_their_bytes_allow() {
        let kept = KeptLetters::default();
        kept.keep(letters("p", Reason::Trap, [1; 600]));
        kept.keep(letters("p", Reason::Trap, [1; 600]));
        assert_eq!(numbers(&kept), (201..=1200).rev().collect::<Vec<_>>());
        kept.keep(letters("p", Reason::Trap, [5 << 20; 4]));
        assert_eq!(numbers(&kept), [1204, 1203, 1202]);
        kept.keep(letters("p", Reason::Trap, [17 << 20]));
        let (all, _) = kept.newest(&LetterFilter::default(), None, 9);
        assert_eq!(all[0].letter.whole_bytes, Some(17 << 20));
        assert_eq!(numbers(&kept), [1205, 1204, 1203, 1202], "what is left of it takes little");
    }

    #[test]
    fn a_page_has_what_is_meant_and_goes_on_before_a_number() {
        let kept = KeptLetters::default();
        kept.keep(letters("p", Reason::Trap, [1; 3]));
        kept.keep(letters("q", Reason::Trap, [1; 3]));
        kept.keep(letters("q", Reason::Decode, [1; 3]));
        let page = |pipeline: &str, reason, before| {
            let filter = LetterFilter { pipeline: Some(pipeline.to_owned()), reason };
            let (page, count) = kept.newest(&filter, before, 2);
            (page.iter().map(|shown| shown.number).collect::<Vec<_>>(), count)
        };
        assert_eq!(page("q", None, None), (vec![9, 8], 6));
        assert_eq!(page("q", None, Some(8)), (vec![7, 6], 6));
        assert_eq!(page("q", Some(Reason::Trap), None), (vec![6, 5], 3));
        assert_eq!(page("r", None, None), (vec![], 0));
    }

    #[test]
    fn what_waits_to_be_retried_stays_listed_and_is_pushed_out_last() {
        let kept = KeptLetters::default();
        kept.keep(letters("p", Reason::Trap, [1; 10]));
        assert!(kept.set_aside(3).is_ok() && kept.set_aside(3).is_err() && kept.set_aside(11).is_err());
        assert!(kept.get(3).is_some_and(|shown| shown.is_waiting));
        kept.keep(letters("p", Reason::Trap, [1; 1000]));
        let all = numbers(&kept);
        assert_eq!((all.len(), all.last()), (1000, Some(&3)));
        kept.put_back(3);
        assert!(kept.get(3).is_some_and(|shown| !shown.is_waiting));
        kept.keep(letters("p", Reason::Trap, [1]));
        assert!(kept.get(3).is_none(), "it is the oldest again");

        assert!(kept.set_aside(1000).is_ok());
        assert!(kept.take_out(1000, |_| Ok(())).is_ok() && kept.take_out(1000, |_| Ok(())).is_err());
        assert_eq!(numbers(&kept).len(), 999);
        let waiting = numbers(&kept);
        assert!(waiting.iter().all(|number| kept.set_aside(*number).is_ok()));
        kept.keep(letters("p", Reason::Trap, [1; 2]));
        let all = numbers(&kept);
        assert_eq!((all.len(), all[0]), (1000, 1013), "the newest is kept where all others wait");
    }

    #[test]
    fn a_name_is_that_of_one_letter_of_one_life_of_the_host() {
        let kept = KeptLetters::default();
        assert_eq!(kept.number(&kept.name(17)), Some(17));
        let run = kept.name(1).replace("-1", "");
        for name in
            ["17", "", "-17", "zzzzz-17", &format!("{run}-"), &format!("{run}-+1"), &format!("{run}1")]
        {
            assert_eq!(kept.number(name), None, "{name}");
        }
    }
}
