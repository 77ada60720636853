//! What nodes say to each other about eventual mode: runs, and reports of what each has.

use bytes::Bytes;
use rdb_core::codec::{Corrupt, Reader};
use rdb_core::eventual::peers::Report;
use rdb_core::eventual::vector::{Origin, Vector};
use rdb_core::ids::{Era, Incarnation, RegionId};
use rdb_core::version::Hlc;
use rdb_proto::internal::v1 as wire;

pub(super) fn report_to_wire(
    (region, me): (RegionId, Origin),
    report: &Report,
    ask: bool,
    besides: &Besides,
    copy: bool,
) -> wire::OriginReport {
    wire::OriginReport {
        region: region.0,
        era: report.era.0,
        synced: vector_to_wire(&report.synced),
        applied: vector_to_wire(&report.applied),
        shown: vector_to_wire(&report.shown),
        promise: report.promise.0,
        ask,
        purge_to: besides.purge_to.0,
        purge_ready: besides.purge_ready.0,
        incarnation: me.incarnation.0,
        copy,
        certain: vector_to_wire(&besides.certain),
    }
}

/// What a report says besides how far its node is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Besides {
    /// Up to which stamp all are to purge tombstones; 0 where it does not say.
    pub(crate) purge_to: Hlc,
    /// Up to which stamp that node is ready for it.
    pub(crate) purge_ready: Hlc,
    /// What became of each write that this has is certain there, and that is flushed.
    pub(crate) certain: Vector,
}

/// What a node says of a region.
pub(crate) struct Said {
    pub(crate) region: RegionId,
    pub(crate) report: Report,
    /// Whether it wants to be told the same of this node.
    pub(crate) ask: bool,
    /// What else it says.
    pub(crate) besides: Besides,
    /// Whether that node cannot serve this one from its logs any more.
    pub(crate) copy: bool,
    /// In which of its starts that node says so.
    pub(crate) incarnation: Incarnation,
}

/// Reads a report.
///
/// # Errors
/// A vector in it is none.
pub(crate) fn report_from_wire(report: &wire::OriginReport) -> Result<Said, Corrupt> {
    let report_of = Report {
        era: Era(report.era),
        synced: vector_from_wire(&report.synced)?,
        applied: vector_from_wire(&report.applied)?,
        shown: vector_from_wire(&report.shown)?,
        promise: Hlc(report.promise),
    };
    Ok(Said {
        region: RegionId(report.region),
        report: report_of,
        ask: report.ask,
        besides: Besides {
            purge_to: Hlc(report.purge_to),
            purge_ready: Hlc(report.purge_ready),
            certain: vector_from_wire(&report.certain)?,
        },
        copy: report.copy,
        incarnation: Incarnation(report.incarnation),
    })
}

fn vector_to_wire(vector: &Vector) -> Bytes {
    let mut out = Vec::new();
    vector.put(&mut out);
    out.into()
}

fn vector_from_wire(bytes: &[u8]) -> Result<Vector, Corrupt> {
    let mut reader = Reader::new("a vector in a peer's report", bytes);
    let vector = Vector::read(&mut reader)?;
    reader.finish()?;
    Ok(vector)
}
