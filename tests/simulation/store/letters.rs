//! What people decided about dead letters.

use async_trait::async_trait;
use recharged::domain::Timestamp;
use recharged::ports::{LetterKey, LetterMark, LetterMarks, LetterState, StoreError};
use uuid::Uuid;

use super::MemStore;

impl MemStore {
    /// The marks of replays that a run has begun and not ended.
    fn of_run(&self, keys: &[LetterKey], run: Uuid, mut each: impl FnMut(&mut super::State, &LetterKey)) {
        let mut state = self.state.lock().unwrap();
        for key in keys {
            let begun = |mark: &LetterMark| mark.run == run && mark.state == LetterState::Replaying;
            if state.letters.get(key).is_some_and(begun) {
                each(&mut state, key);
            }
        }
    }
}

#[async_trait]
impl LetterMarks for MemStore {
    async fn letter_marks(&self, keys: &[LetterKey]) -> Result<Vec<Option<LetterMark>>, StoreError> {
        self.there("letter marks").await?;
        let state = self.state.lock().unwrap();
        Ok(keys.iter().map(|key| state.letters.get(key).cloned()).collect())
    }

    async fn mark_letters(
        &self,
        keys: &[LetterKey],
        mark: &LetterMark,
        abandoned_before: Timestamp,
    ) -> Result<Vec<bool>, StoreError> {
        self.there("mark letters").await?;
        let mut state = self.state.lock().unwrap();
        let mut stands = Vec::new();
        for key in keys {
            let gives_way = |there: &LetterMark| {
                there.run == mark.run || there.state == LetterState::Replaying && there.at < abandoned_before
            };
            let stand = state.letters.get(key).is_none_or(gives_way);
            if stand {
                state.letters.insert(key.clone(), mark.clone());
            }
            stands.push(stand);
        }
        Ok(stands)
    }

    async fn replays_done(&self, keys: &[LetterKey], run: Uuid, at: Timestamp) -> Result<(), StoreError> {
        self.there("replays done").await?;
        self.of_run(keys, run, |state, key| {
            if let Some(mark) = state.letters.get_mut(key) {
                (mark.state, mark.at) = (LetterState::Replayed, at);
            }
        });
        Ok(())
    }

    async fn replays_failed(&self, keys: &[LetterKey], run: Uuid) -> Result<(), StoreError> {
        self.there("replays failed").await?;
        self.of_run(keys, run, |state, key| drop(state.letters.remove(key)));
        Ok(())
    }

    async fn forget_letters(&self, before: Timestamp) -> Result<u64, StoreError> {
        self.there("forget letters").await?;
        let mut state = self.state.lock().unwrap();
        let were = state.letters.len();
        state.letters.retain(|_, mark| !mark.state.is_done() || mark.at >= before);
        Ok((were - state.letters.len()) as u64)
    }
}
