-- Who keeps something, for pruning also where nobody has asked since the start: names alone. The service's role sees its tenant's
-- row; all names come from a function of the owner's.
create table memory_tenant (tenant_id text primary key);
alter table memory_count no force row level security;
insert into memory_tenant select distinct tenant_id from memory_count;
alter table memory_count force row level security;

alter table memory_tenant enable row level security;
alter table memory_tenant force row level security;
create policy tenant on memory_tenant using (tenant_id = nullif(current_setting('app.tenant', true), ''));
do $$
begin
  execute format('create policy names on memory_tenant for select to %I using (true)', current_user);
end $$;

create function note_tenant() returns trigger language plpgsql set search_path = memory as $$
begin
  insert into memory_tenant values (new.tenant_id) on conflict do nothing;
  return null;
end $$;
create trigger note_tenant after insert on memory_count for each row execute function note_tenant();

create function memory_tenants() returns setof text language sql stable security definer set search_path = memory as $$
  select tenant_id from memory_tenant order by tenant_id;
$$;
revoke all on function memory_tenants() from public;
do $$
begin
  if exists (select from pg_roles where rolname = 'agentnet_memory') then
    grant execute on function memory_tenants() to agentnet_memory;
  end if;
end $$;

-- A fact that is closed keeps until when it was so as it was known before, each with the time the mesh learned better.
alter table fact add column earlier jsonb not null default '[]';
alter table fact no force row level security;
update fact set earlier = jsonb_build_array(jsonb_build_object('until', ended_at, 'valid_to', null)) where ended_at is not null;
alter table fact force row level security;
