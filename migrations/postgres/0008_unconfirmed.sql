-- A case of its own for what a callback says against an order, and its provider did not confirm when it was asked.
alter table cases drop constraint cases_kind_check;
alter table cases add constraint cases_kind_check check (kind in (
    'in_doubt', 'payload_conflict', 'late_success', 'conflict', 'reversed_after_success', 'provider_flipped',
    'double_success', 'amount_mismatch', 'failed_unproven', 'unconfirmed'));
