-- Archiving goes over all tenants: where each chain stands, and nothing of what is in it, can be read for all at once.
create policy every_tenant on audit_head for select using (current_setting('app.tenant', true) = '*');
