-- An override may be for one call, by its request_id.
alter table override add column request_id text not null default '';

-- Old rows of risks, as JSON, where the archive is a table. Nothing in it is changed or deleted.
create table risk_archive (
  tenant_id text not null,
  kind text not null,
  id text not null,
  data jsonb not null,
  created_at timestamptz not null,
  primary key (tenant_id, kind, id)
);
alter table risk_archive enable row level security;
alter table risk_archive force row level security;
create policy tenant on risk_archive using (tenant_id = nullif(current_setting('app.tenant', true), ''));
revoke update, delete on risk_archive from agentnet_policy;
create index risk_event_age_idx on risk_event (tenant_id, created_at, id);
create index enforcement_action_age_idx on enforcement_action (tenant_id, created_at, id);

-- The service's role sees its tenant's rows; whose there are comes from a function of the owner's, names alone.
do $$
declare
  name text;
begin
  foreach name in array array['risk_event', 'risk_mitigation', 'enforcement_action'] loop
    execute format('create policy names on %I for select to %I using (true)', name, current_user);
  end loop;
end $$;
create function risk_tenants() returns setof text language sql stable security definer set search_path = policy, pg_temp as $$
  select tenant_id from risk_event union select tenant_id from enforcement_action union select tenant_id from risk_mitigation
  order by 1;
$$;

-- The service may add to these tables and nothing else. This takes away rows that are in the archive, none younger than a day.
create function forget_risks(p_kind text, p_ids text[]) returns void
language plpgsql security definer set search_path = policy, pg_temp as $$
declare
  v_tenant text := nullif(current_setting('app.tenant', true), '');
  v_before timestamptz := clock_timestamp() - interval '1 day';
begin
  if p_kind = 'event' then
    delete from risk_event where tenant_id = v_tenant and id = any(p_ids) and created_at < v_before;
  elsif p_kind = 'action' then
    delete from enforcement_action where tenant_id = v_tenant and id = any(p_ids) and expires_at < v_before;
  elsif p_kind = 'mitigation' then
    delete from risk_mitigation where tenant_id = v_tenant and id = any(p_ids) and created_at < v_before;
  end if;
end $$;
revoke all on function risk_tenants(), forget_risks(text, text[]) from public;
do $$
begin
  if exists (select from pg_roles where rolname = 'agentnet_policy') then
    grant execute on function risk_tenants(), forget_risks(text, text[]) to agentnet_policy;
  end if;
end $$;
