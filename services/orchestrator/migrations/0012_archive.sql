-- Logs of sessions that ended long ago are in the object store and no longer here; all else of them stays.
alter table session add column archived_at timestamptz;
create index session_hot_idx on session (tenant_id, ended_at) where ended_at is not null and archived_at is null;

-- The service may add to a log and nothing else. This takes away a whole one, of a session that has ended, and says so.
create function let_go(p_session text) returns void language plpgsql security definer set search_path = orchestrator, pg_temp as $$
declare
  v_tenant text := nullif(current_setting('app.tenant', true), '');
begin
  update session set archived_at = clock_timestamp()
    where tenant_id = v_tenant and id = p_session and ended_at is not null and archived_at is null;
  if found then
    delete from event where tenant_id = v_tenant and session_id = p_session;
  end if;
end $$;
revoke all on function let_go(text) from public;
do $$
begin
  if exists (select from pg_roles where rolname = 'agentnet_orchestrator') then
    grant execute on function let_go(text) to agentnet_orchestrator;
  end if;
end $$;
