//! The mutants: one deliberate defect each.

/// One deliberate defect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// The unit is released when the publish timed out.
    ReleaseOnTimeout,
    /// 202 before the confirm.
    ReplyBeforeConfirm,
    /// The in-flight entry is removed at the publish, before the confirm.
    InFlightClearedBeforeConfirm,
    /// The message is acknowledged before the commit.
    AckBeforeCommit,
    /// A start-up writes the gate from the database during the sale.
    StartResetsGate,
    /// A release goes by user, without comparing the order id.
    ReleaseByUser,
    /// `release_due` is cleared before the gate call.
    DueClearedBeforeRelease,
    /// The gate is released before the cancel is committed.
    ReleaseBeforeCommit,
    /// Any duplicate is taken for success: the index is over dead orders too.
    AnyDuplicateIsSuccess,
    /// A restock reaches the gate first.
    RestockGateFirst,
    /// Late messages are accepted and take stock unconditionally.
    LateAcceptedUnconditionally,
    /// Late messages are accepted, and take stock if there is any.
    LateAccepted,
    /// Telling the gate that an order is written restores a missing reservation.
    MarkingWrittenRestoresReservation,
    /// A rebuild does not wait until older promises can no longer be given.
    RebuildWithoutWaiting,
    /// The age of a request is checked before the publish, not after the confirm.
    AgeCheckedBeforePublish,
    /// Consumers compete: the barrier overtakes an unacked message.
    CompetingConsumers,
    /// No barrier: the queue is found empty twice, longer apart than a consumer may hold a message.
    EmptyTwiceForBarrier,
    /// A barrier that was delivered before is trusted.
    RedeliveredBarrierTrusted,
    /// The live orders are read before the fence is committed.
    LiveReadBeforeFence,
    /// The fence is a flag instead of a number.
    FenceIsFlag,
    /// A gate is installed over an open one.
    InstallOverOpenGate,
    /// A release counts as done on a closed gate.
    ReleaseDoneOnClosedGate,
    /// The gate does not know its server: a failover loses a suffix unnoticed.
    NoServerIdentity,
    /// An instance whose gate was rebuilt on another server goes on promising from the old one.
    DeposedNeverTold,
    /// A purchase that was set aside goes back to the queue though its gate was rebuilt since.
    ReplayPastTheGate,
    /// The gate of a sale that is over is taken away with a purchase in flight.
    RetireInFlight,
    /// It is taken away because the row says that the sale is over, whatever the gate's own settings say.
    RetireByTheRowAlone,
    /// Its retirement is noted although the row has changed since.
    RetirementNotedBlindly,
    /// What is to be released is forgotten because the sale is over, though its gate is there.
    ReleaseForgottenByAnOpenGate,
    /// Any gate that is gone is taken for a retired one, and made anew without waiting for what is on its way.
    AnyGateGoneIsRetired,
    /// Whoever opens a gate does not read once more which epoch is to be opened.
    OpenedWithoutAnotherLook,
    /// A purchase that was set aside is replayed after its gate was retired, which stays noted.
    ReplayLeavesItRetired,
    /// What a reservation has beyond one unit stays taken when it is released.
    QuantityReleasedAsOne,
    /// A rebuild loads the buyers and not what they have beyond one unit.
    ExtraNotLoaded,
    /// Two units are granted when one remains.
    GrantedInPart,
    /// A lowering takes from the stock that the database enforces.
    EnforcedStockLowered,
    /// The order writer takes no withheld unit, also for what a gate has admitted.
    WithheldIsEnforced,
    /// The sweeper raises what is offered to what is taken at an open gate, and to nothing else.
    RaisedByTheGateAlone,
    /// An order expires whatever its status is by now.
    ExpiryWithoutStatus,
    /// The units of an order that expires are counted down, whoever made it expire.
    ExpiryCountedTwice,
    /// The gate is released before an expiry is committed.
    ExpiryReleasedBeforeCommit,
    /// The provider gets 200 before the commit.
    AnsweredBeforeCommit,
    /// The id of an event is stored before the work that it stands for, and a repeat goes by it.
    EventStoredFirst,
    /// A second payment of a paid order is taken for a repeat of the first.
    SecondPaymentTakenForARepeat,
    /// A second payment pays a paid order once more.
    SecondPaymentPaysToo,
    /// The merchant cancels a paid order and leaves its payment as it is.
    ClosedWithItsMoney,
    /// A refund is counted although the order was cancelled before.
    RefundCountsTwice,
    /// A dead order is revived in the database, without asking the gate.
    RevivedInTheDatabaseOnly,
    /// A reservation of a late payment does not name it: it is the one that its order had before.
    RevivedUnderTheOrderAlone,
    /// The same, but a late payment has to wait until nothing is due for its order.
    RevivedOnceItWasReleased,
    /// All entries in flight of a late payment are one.
    EntryOfItsPaymentAlone,
    /// The release that is due for the first life stays due.
    RevivedWithTheReleaseDue,
    /// A late payment revives its order whatever the fence is.
    RevivalIgnoresTheFence,
    /// The sweeper releases a late payment in flight because its order is dead, and decides nothing.
    SweeperReleasesLatePayments,
    /// A handler that does not know whether its revival was committed releases the reservation.
    LateReleasedWhenItsCommitIsUnknown,
    /// A release of one life of an order counts for the other.
    DueClearedForAnotherLife,
    /// A rebuild loads a revived order like one that never died.
    LoadedWithoutItsPayment,
    /// A late payment whose gate is lost is decided by the database, as if the gate had been retired.
    LostGateTakenForRetired,
    /// A purchase that was set aside is replayed without a gate, whether its units have been sold since or not.
    ReplayWithoutALook,
    /// A repeat is answered 409 from an unconfirmed reservation.
    RepeatAnsweredUnconfirmed,
}
