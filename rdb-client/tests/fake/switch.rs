//! Switches of mode: one at a time, which go no further by themselves.

use super::{Broken, Service, State, not_found, refused_status, to_status};
use rdb_proto::v1::{self, Code, Mode, Outcome, SwitchPhase};
use tonic::{Response, Status};

/// How the mode of all namespaces stands.
#[derive(Default)]
pub struct Switch {
    pub number: u64,
    pub under_way: bool,
}

impl State {
    fn switch_status(&self, name: &str) -> v1::SwitchStatus {
        let phase = if self.switch.under_way { SwitchPhase::Preparing } else { SwitchPhase::Settled };
        v1::SwitchStatus {
            name: name.into(),
            id: self.namespaces.get(name).map_or(0, |(id, _)| *id),
            mode: Mode::Strong.into(),
            epoch: self.epoch,
            era: 1,
            phase: phase.into(),
            switch: self.switch.number,
            controls: true,
            ..v1::SwitchStatus::default()
        }
    }
}

fn refused(message: &str) -> Status {
    to_status(&v1::Error {
        code: Code::SwitchRefused.into(),
        outcome: Outcome::NotDone.into(),
        message: message.into(),
        ..v1::Error::default()
    })
}

impl Service {
    pub(super) fn begin_switch(
        &self,
        asked: &v1::SwitchModeRequest,
    ) -> Result<Response<v1::SwitchModeResponse>, Status> {
        let mut state = self.world.state.lock();
        // Faults are for what changes something.
        let fault = if asked.dry_run { None } else { state.next_fault(self.id) };
        if let Some(refused) = state.refuse(self.id, fault) {
            return Err(refused_status(refused));
        }
        if !state.namespaces.contains_key(&asked.name) {
            return Err(to_status(&not_found(&asked.name)));
        }
        let is_begun = asked.after_switch.is_some_and(|after| after + 1 == state.switch.number);
        if !asked.dry_run && !is_begun {
            if state.switch.under_way {
                return Err(refused("a switch is under way"));
            }
            state.switch.number += 1;
            state.switch.under_way = true;
            if state.breaks(fault, &asked.name) {
                return Err(refused_status(Err(Broken)));
            }
        }
        let (header, status) = (Some(state.header(self.id)), Some(state.switch_status(&asked.name)));
        Ok(Response::new(v1::SwitchModeResponse { header, status, hindrances: Vec::new() }))
    }

    pub(super) fn call_off(
        &self,
        asked: &v1::AbortSwitchRequest,
    ) -> Result<Response<v1::AbortSwitchResponse>, Status> {
        let mut state = self.world.state.lock();
        let fault = state.next_fault(self.id);
        if let Some(refused) = state.refuse(self.id, fault) {
            return Err(refused_status(refused));
        }
        let is_over = asked.switch != 0 && asked.switch == state.switch.number && !state.switch.under_way;
        if !is_over {
            if !state.switch.under_way {
                return Err(refused("no switch is under way"));
            }
            state.switch.under_way = false;
            state.epoch += 1;
            if state.breaks(fault, &asked.name) {
                return Err(refused_status(Err(Broken)));
            }
        }
        let (header, status) = (Some(state.header(self.id)), Some(state.switch_status(&asked.name)));
        Ok(Response::new(v1::AbortSwitchResponse { header, status }))
    }

    pub(super) fn look_at_switch(&self, name: &str) -> Result<Response<v1::GetSwitchResponse>, Status> {
        let state = self.world.state.lock();
        if !state.namespaces.contains_key(name) {
            return Err(to_status(&not_found(name)));
        }
        let (header, status) = (Some(state.header(self.id)), Some(state.switch_status(name)));
        Ok(Response::new(v1::GetSwitchResponse { header, status }))
    }
}
