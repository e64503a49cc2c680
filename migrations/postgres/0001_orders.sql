-- What the database remembers of orders. Forward only; never edited after its release.
-- Ids are compared as bytes (collation C): cheaper in every index, and the order in which
-- batches are sorted before they lock rows.

-- One row an order. What hardly ever changes comes first, what every transition changes last: an
-- update then logs only the end of the row. Within that, what must be aligned stands together.
create table orders (
    created_at       timestamptz not null,
    amount_minor     bigint      not null check (amount_minor >= 0),
    paid_at          timestamptz,
    deadline_at      timestamptz not null,
    order_id         text        collate "C" primary key,
    phone            text        not null,
    currency         text        not null check (octet_length(currency) = 3),
    notify           boolean     not null,
    carrier          text,
    metadata         text,
    payment_id       text,
    claimed_at       timestamptz,
    wake_at          timestamptz,
    held_until       timestamptz, -- whoever asks the provider about it is alone until then; in no log
    closed_at        timestamptz,
    version          integer     not null check (version >= 1),
    asked_version    integer     not null,
    held_version     integer, -- the asked_version at that hold
    attempt          integer     check (attempt >= 1),
    declined         integer     not null check (declined >= 0),
    cases            integer     not null check (cases >= 0),
    refund_requested boolean     not null,
    claim_id         uuid,
    state            text        not null check (state in (
        'awaiting_payment', 'queued', 'in_flight', 'retry_wait', 'in_doubt', 'succeeded', 'failed', 'cancelled')),
    provider         text,
    client_ref       text, -- where it is not `order_id-attempt`
    attempt_state    text        check (attempt_state in (
        'prepared', 'sent', 'accepted', 'unknown', 'succeeded', 'failed', 'not_executed', 'written_off')),
    provider_ref     text,
    inquiry          text,
    reason           text,
    sla              text        check (sla in ('met', 'missed')),
    logged_in        bytea       not null, -- the transactions that wrote its log entries, 8 bytes each: its timeline

    constraint asked_version_is_past check (asked_version between 0 and version),
    constraint amount_can_be_recharged check (
        amount_minor > 0 or state in ('awaiting_payment', 'failed', 'cancelled')),
    constraint attempt_is_whole check (
        num_nulls(attempt, attempt_state, claim_id, claimed_at) in (0, 4) and (attempt is not null or client_ref is null)),
    constraint closed_has_its_time check ((closed_at is not null) = (state in ('succeeded', 'failed', 'cancelled'))),
    constraint failed_has_no_open_attempt check (
        state <> 'failed' or attempt_state is null or attempt_state not in ('sent', 'accepted', 'unknown')),
    constraint refund_of_a_payment check (not refund_requested or paid_at is not null),
    constraint doubt_has_a_case check (state <> 'in_doubt' or cases <> 0)
)
-- Room for two updates of each row on its own page, so that they stay heap-only: measured, six rows
-- on a page leave it (97 %), seven do not (84 %), and each update that leaves its page costs index
-- entries (907 and 1,000 bytes of WAL an order).
with (fillfactor = 30);

-- The watchdog reads in deadline order, from its low-water mark. The only index beside the key,
-- and on a column that only a payment changes: an index that contains, or is conditional on, what
-- hot transitions change ends heap-only updates and costs every write 1.4 times.
create index orders_deadline_at on orders (deadline_at);

-- One refund an order at most, by its key.
create table refunds (
    order_id     text        collate "C" primary key,
    payment_id   text,
    amount_minor bigint      not null check (amount_minor >= 0),
    currency     text        not null check (octet_length(currency) = 3),
    reason       text        not null,
    requested_at timestamptz not null,
    state        text        not null default 'requested' check (state in ('requested', 'confirmed', 'rejected')),
    refund_id    text,
    settled_at   timestamptz,
    constraint settled_has_its_time check ((settled_at is not null) = (state <> 'requested'))
);

-- What a person may have to look at; at most one of a kind for an order, by its key.
create table cases (
    order_id          text        collate "C" not null,
    kind              text        not null check (kind in (
        'in_doubt', 'payload_conflict', 'late_success', 'conflict', 'reversed_after_success', 'provider_flipped',
        'double_success', 'amount_mismatch', 'failed_unproven')),
    state             text        not null default 'open' check (state in ('open', 'resolved')),
    opened_at         timestamptz not null,
    escalate_at       timestamptz not null,
    next_query_at     timestamptz,
    evidence          text        not null,
    owner             text,
    escalated         boolean     not null default false,
    resolved_at       timestamptz,
    resolved_by       text,
    resolved_evidence text,
    primary key (order_id, kind),
    constraint resolved_is_explained check (
        num_nulls(resolved_at, resolved_by, resolved_evidence) = case state when 'resolved' then 0 else 3 end)
);

-- Few rows beside the orders: what the watchdog and people ask for each has its index.
create index cases_opened_at on cases (opened_at, order_id, kind) where state = 'open';
create index cases_next_query_at on cases (next_query_at) where next_query_at is not null;
create index cases_escalate_at on cases (escalate_at) where state = 'open' and not escalated;

-- Every order with a deadline before the mark is decided: the watchdog reads from there. One row.
create table watchdog (
    only_one  boolean     primary key default true check (only_one),
    low_water timestamptz not null
);
insert into watchdog (low_water) values (timestamptz 'epoch');

-- How far the lanes have read their topics: whatever was written to a partition before its mark was
-- acted on. A row a partition, written every few seconds.
create table read_marks (
    topic     text        collate "C" not null,
    partition integer     not null,
    up_to     timestamptz not null,
    primary key (topic, partition)
);
