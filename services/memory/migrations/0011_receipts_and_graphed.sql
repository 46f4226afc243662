-- Receipts are read: the last ones, and what became of one thing.
create index forget_receipt_time_idx on forget_receipt (tenant_id, deleted_at, id);
create index forget_receipt_subject_idx on forget_receipt (tenant_id, subject_id);

-- Whether the graph knows anything of a tenant's: without, all of a tenant's rows were read to see that it does not.
create index memory_episode_graphed on memory_episode (tenant_id) where in_graph;
create index memory_episode_384_graphed on memory_episode_384 (tenant_id) where in_graph;
create index memory_episode_any_graphed on memory_episode_any (tenant_id) where in_graph;
