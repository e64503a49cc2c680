-- The refund that the payment side has confirmed, requested or not; the first one. Last in the row, and mostly absent.
alter table orders add column refund_id text;

-- When a person must hear that a refund was not confirmed; gone once it was, or once they have.
alter table refunds add column confirm_by timestamptz;

-- The watchdog reads in this order.
create index refunds_confirm_by on refunds (confirm_by, order_id) where confirm_by is not null;

-- Not validated: the rows that are there satisfy the narrower one, and a look at each would lock the table.
alter table cases
    drop constraint cases_kind_check,
    add constraint cases_kind_check check (kind in (
        'in_doubt', 'payload_conflict', 'late_success', 'conflict', 'reversed_after_success', 'provider_flipped',
        'double_success', 'amount_mismatch', 'failed_unproven', 'unconfirmed', 'unrequested_refund', 'refunded_twice',
        'refund_unconfirmed')) not valid;
