-- Conversations and facts are kept within bounds too, also those of tenants that store no memories: their names are noted as those of the
-- others are. The owner sees no rows without a tenant.
alter table short_term_turn no force row level security;
alter table fact no force row level security;
insert into memory_tenant select distinct tenant_id from short_term_turn on conflict do nothing;
insert into memory_tenant select distinct tenant_id from fact on conflict do nothing;
alter table short_term_turn force row level security;
alter table fact force row level security;

create function note_tenants() returns trigger language plpgsql set search_path = memory as $$
begin
  insert into memory_tenant select distinct tenant_id from added on conflict do nothing;
  return null;
end $$;
create trigger note_tenants after insert on short_term_turn referencing new table as added
  for each statement execute function note_tenants();
create trigger note_tenants after insert on fact referencing new table as added for each statement execute function note_tenants();

-- Which sessions have been silent for long.
create index short_term_turn_time_idx on short_term_turn (tenant_id, created_at);
