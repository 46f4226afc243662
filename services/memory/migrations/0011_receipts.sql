-- Receipts are read: the last ones, and what became of one thing.
create index forget_receipt_time_idx on forget_receipt (tenant_id, deleted_at, id);
create index forget_receipt_subject_idx on forget_receipt (tenant_id, subject_id);
